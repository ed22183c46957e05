//! The parts of the work that a profile tells apart, and which function of the kernel belongs to which.
//!
//! A function that is not in the table is one that everybody calls (locks, checksums, lists, hashes), and counts as its caller's; so does
//! what is sampled where interrupts are switched on again. What nobody calls is `other`. Pure. Deliberately absent: whose program
//! it is, which is no question of functions ([`super::tally`]).

/// A part of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// The client's program.
    Client,
    /// The server's program.
    Server,
    /// The forwarder's program.
    Forwarder,
    /// System calls, descriptors, epoll, pipes.
    Calls,
    /// TCP and UDP.
    Transport,
    /// IP: receiving, routes, forwarding, neighbours.
    Ip,
    /// The hooks of netfilter and the rules behind them.
    Netfilter,
    /// Connection tracking and the translation that stands on it.
    Conntrack,
    /// IPVS.
    Ipvs,
    /// BPF programs with their maps and helpers.
    Bpf,
    /// Interfaces, their queues, what takes packets from them.
    Devices,
    /// Packets' buffers, memory, copies of payload.
    Memory,
    /// Scheduling, timers, page faults, processes that begin and end.
    Tasks,
    /// What is none of these.
    Other,
}

impl Area {
    /// All, in the order in which they are shown.
    pub const ALL: [Self; 14] = [
        Self::Client,
        Self::Server,
        Self::Forwarder,
        Self::Calls,
        Self::Transport,
        Self::Ip,
        Self::Netfilter,
        Self::Conntrack,
        Self::Ipvs,
        Self::Bpf,
        Self::Devices,
        Self::Memory,
        Self::Tasks,
        Self::Other,
    ];

    /// Its name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Forwarder => "forwarder",
            Self::Calls => "calls",
            Self::Transport => "transport",
            Self::Ip => "ip",
            Self::Netfilter => "netfilter",
            Self::Conntrack => "conntrack",
            Self::Ipvs => "ipvs",
            Self::Bpf => "bpf",
            Self::Devices => "devices",
            Self::Memory => "memory",
            Self::Tasks => "tasks",
            Self::Other => "other",
        }
    }

    /// What a reader is told that it is, in a few words.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Client => "client's program",
            Self::Server => "server's program",
            Self::Forwarder => "forwarder's program",
            Self::Calls => "system calls, epoll",
            Self::Transport => "TCP, UDP",
            Self::Ip => "IP, routes",
            Self::Netfilter => "netfilter's hooks and rules",
            Self::Conntrack => "conntrack, NAT",
            Self::Ipvs => "IPVS",
            Self::Bpf => "BPF",
            Self::Devices => "devices, queues",
            Self::Memory => "buffers, memory, copies",
            Self::Tasks => "scheduling, timers, faults",
            Self::Other => "other",
        }
    }

    /// The one of that name; what a later version tells apart is `other` here.
    pub fn named(name: &str) -> Self {
        Self::ALL.into_iter().find(|area| area.name() == name).unwrap_or(Self::Other)
    }
}

/// How the names of functions begin, without underscores before them, by area. Of several beginnings that fit the longest counts.
const FUNCTIONS: [(Area, &str); 10] = [
    (
        Area::Calls,
        "alloc_fd close_fd do_epoll do_splice do_sys_ do_syscall_64 entry_SYSCALL ep_ eventpoll f_ fd_ fdget fget file_ filp_ \
         fput iter_file_splice ksys_ pipe_ receive_fd sock_ sockfd_ splice_ sys_ syscall_ vfs_ x64_sys_",
    ),
    (
        Area::Transport,
        "bictcp bpf_skops cubictcp inet6_csk inet_accept inet_bind inet_csk inet_dgram inet_ehash inet_hash inet_lhash \
         inet_lookup inet_put_port inet_recvmsg inet_release inet_send_prepare inet_sendmsg inet_shutdown inet_sk_ inet_sock \
         inet_stream inet_twsk inet_unhash lock_sock mptcp_ release_sock reqsk_ secure_tcp sk_ skb_tstamp sock_def_ sock_efree \
         sock_rfree sock_wfree tcp4_ tcp6_ tcp_ tw_timer udp4_ udp_",
    ),
    (
        Area::Ip,
        "arp_ dst_ fib4_ fib_ icmp_ inet_getpeer inet_rtm ip4_ ip6_ ip_ ipv4_ ipv6_ neigh_ raw_local_deliver rt6_ rt_",
    ),
    (Area::Netfilter, "ipt_ iptable_ nf_ nfnetlink nft_ xt_"),
    (
        Area::Conntrack,
        "early_drop get_l4proto get_unique_tuple hash_conntrack iptable_nat ipv4_confirm ipv4_conntrack l4proto_manip_pkt \
         masquerade_ masquerade_tg nf_confirm nf_conntrack nf_ct nf_nat nf_xfrm nft_ct_ nft_masq nft_nat nft_redir \
         resolve_normal_ct xt_dnat xt_snat",
    ),
    (Area::Ipvs, "ip_vs_"),
    (
        Area::Bpf,
        "array_map bpf_clone_redirect bpf_csum bpf_dispatcher bpf_fib bpf_flow bpf_get_ bpf_ipv4_fib bpf_ipv6_fib bpf_ktime \
         bpf_l3_csum bpf_l4_csum bpf_map bpf_msg bpf_prog_ bpf_redirect bpf_sk_lookup bpf_skb_ bpf_skc_ bpf_tc_ bpf_trampoline \
         bpf_xdp_ cls_bpf htab_ percpu_array run_xdp tcx_ trie_lookup xdp_do_generic",
    ),
    (
        Area::Devices,
        "bq_ dev_ do_softirq do_xdp_generic enqueue_to_backlog eth_ ethtool_ flow_dissect generic_xdp get_rps_cpu gro_ \
         handle_softirqs inet_gro inet_gso loopback_ napi_ net_rx_action net_tx_action netdev_ netif_ noqueue packet_rcv pfifo \
         process_backlog qdisc run_ksoftirqd sch_ skb_do_redirect skb_flow_dissect skb_get_hash skb_gro skb_gso skb_mac_gso \
         skb_scrub skb_segment tcp4_gro tcp4_gso tcp_gro tcp_gso udp4_gro udp_gro validate_xmit veth_ xdp_",
    ),
    (
        Area::Memory,
        "alloc_frozen_pages alloc_pages alloc_skb build_skb clear_page consume_skb copy_from_iter copy_from_user copy_page \
         copy_to_iter copy_to_user csum_and_copy csum_partial_copy folio_ free_frozen free_pages free_unref get_page_from kfree \
         kmalloc kmem_cache ksize kvfree kvmalloc mem_cgroup memcg_ mod_memcg napi_alloc_ napi_build_skb napi_consume_skb \
         napi_skb_ obj_cgroup page_frag page_pool pskb_ put_page refill_obj_stock rep_movs rep_stos rmqueue simple_copy_to_iter \
         sk_page_frag sk_skb_reason skb_attempt_defer skb_clone skb_copy skb_datagram skb_free skb_page_frag skb_release slab_ \
         slab_alloc try_charge uncharge_",
    ),
    (
        Area::Tasks,
        "asm_exc asm_sysvec bprm_ context_switch copy_process default_wake dequeue_ do_exit do_group_exit do_mmap do_signal \
         do_task_dead do_user_addr_fault enqueue_task exc_ exec_ exit_mm exit_to_user finish_task_switch handle_mm_fault \
         hrtimer_ irq_exit irq_work irqentry kernel_clone load_elf mmput perf_ pick_next prepare_task_switch rcu_core \
         rcu_do_batch rcu_gp rcu_note_context ret_from_fork run_timer sched schedule select_task smpboot switch_ sysvec_ \
         task_work tick_ timerqueue try_to_block try_to_wake ttwu_ unmap_ update_ vm_mmap wake_up wakeup_ worker_thread",
    ),
];

/// The area of a function; none of one that counts as its caller's.
pub fn area(function: &str) -> Option<Area> {
    let name = function.trim_start_matches('_');
    let fits = |(area, beginnings): &(Area, &str)| {
        let fitting = beginnings.split_whitespace().filter(|beginning| name.starts_with(beginning));
        fitting.map(str::len).max().map(|length| (length, *area))
    };
    FUNCTIONS.iter().filter_map(fits).max_by_key(|(length, _)| *length).map(|(_, area)| area)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_in_the_area_of_what_they_do() {
        for (function, expected) in [
            ("__x64_sys_accept4", Area::Calls),
            ("ep_poll_callback", Area::Calls),
            ("sock_sendmsg", Area::Calls),
            ("splice_to_socket", Area::Calls),
            ("tcp_v4_rcv", Area::Transport),
            ("__tcp_transmit_skb", Area::Transport),
            ("sock_def_readable", Area::Transport),
            ("inet_csk_accept", Area::Transport),
            ("__udp4_lib_rcv", Area::Transport),
            ("ip_forward", Area::Ip),
            ("fib_table_lookup", Area::Ip),
            ("ipv4_dst_check", Area::Ip),
            ("nf_hook_slow", Area::Netfilter),
            ("nft_do_chain", Area::Netfilter),
            ("ipt_do_table", Area::Netfilter),
            ("nf_conntrack_in", Area::Conntrack),
            ("__nf_ct_refresh_acct", Area::Conntrack),
            ("nf_nat_manip_pkt", Area::Conntrack),
            ("nft_nat_eval", Area::Conntrack),
            ("nf_confirm", Area::Conntrack),
            ("ip_vs_in_hook", Area::Ipvs),
            ("bpf_prog_6deef7357e7b4530_forward", Area::Bpf),
            ("__htab_map_lookup_elem", Area::Bpf),
            ("bpf_skops_write_hdr_opt", Area::Transport),
            ("nf_xfrm_me_harder", Area::Conntrack),
            ("bpf_skb_store_bytes", Area::Bpf),
            ("veth_xmit", Area::Devices),
            ("net_rx_action", Area::Devices),
            ("tcp4_gro_receive", Area::Devices),
            ("__dev_queue_xmit", Area::Devices),
            ("kmem_cache_alloc_node_noprof", Area::Memory),
            ("skb_release_data", Area::Memory),
            ("napi_skb_cache_put", Area::Memory),
            ("rep_movs_alternative", Area::Memory),
            ("__schedule", Area::Tasks),
            ("asm_sysvec_apic_timer_interrupt", Area::Tasks),
            ("do_user_addr_fault", Area::Tasks),
        ] {
            assert_eq!(area(function), Some(expected), "{function}");
        }
    }

    #[test]
    fn what_everybody_calls_is_its_callers() {
        for function in [
            "_raw_spin_unlock_irqrestore",
            "__local_bh_enable_ip",
            "csum_partial",
            "memcpy",
            "siphash_3u32",
            "mod_timer",
            "bpf_lsm_socket_sendmsg",
            "",
        ] {
            assert_eq!(area(function), None, "{function}");
        }
    }

    #[test]
    fn areas_have_names_of_their_own_and_beginnings_one_area() {
        for each in Area::ALL {
            assert_eq!(Area::named(each.name()), each);
        }
        assert_eq!(Area::named("of a later version"), Area::Other);
        let mut all: Vec<&str> =
            FUNCTIONS.iter().flat_map(|(_, beginnings)| beginnings.split_whitespace()).collect();
        all.sort_unstable();
        let twice: Vec<&str> = all.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        assert_eq!(twice, [""; 0]);
    }
}
