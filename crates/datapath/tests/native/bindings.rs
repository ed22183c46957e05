//! The context of a program, as the programs' library names it. Here nothing is behind it: the packet is the thread's.

/// `struct __sk_buff`.
#[allow(non_camel_case_types, reason = "the library's name")]
pub struct __sk_buff(());
