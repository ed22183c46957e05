//! What an answer by an ICMP error must be.

use crate::reference::checksum;

/// The link addresses of an answer: exchanged, or left to the kernel, where the sender's is not known.
pub fn check_links(before: &[u8], after: &[u8]) {
    let exchanged = (&before[..6], &before[6..12]) == (&after[6..12], &after[..6]);
    assert!(exchanged || before[..12] == after[..12], "link addresses");
}

/// A frame that was answered by an ICMP error: whole, right in every checksum, back to where the frame came from, and quoting
/// no more than came. Its type, code and second word.
pub fn check_told(before: &[u8], after: &[u8]) -> (u8, u8, u32) {
    let ipv4 = before[14] >> 4 == 4;
    check_links(before, after);
    assert_eq!(before[12..14], after[12..14]);
    assert_eq!(before[14] >> 4, after[14] >> 4);
    let (ends, header) = if ipv4 { ([26, 30, 34], 20) } else { ([22, 38, 54], 40) };
    assert_eq!(before[ends[0]..ends[1]], after[ends[1]..ends[2]], "to whom");
    assert_eq!(before[ends[1]..ends[2]], after[ends[0]..ends[1]], "from whom");
    let icmp = &after[14 + header..];
    if ipv4 {
        assert_eq!((after[14], after[23]), (0x45, 1));
        assert_eq!(usize::from(u16::from_be_bytes([after[16], after[17]])), after.len() - 14);
        assert_eq!(checksum(&[&after[14..34]]), 0, "the header's checksum");
        assert_eq!(checksum(&[icmp]), 0, "the checksum");
    } else {
        assert_eq!(after[20], 58);
        assert_eq!(usize::from(u16::from_be_bytes([after[18], after[19]])), icmp.len());
        let mut pseudo = after[22..54].to_vec();
        pseudo.extend((icmp.len() as u32).to_be_bytes());
        pseudo.extend([0, 0, 0, 58]);
        assert_eq!(checksum(&[&pseudo, icmp]), 0, "the checksum");
    }
    assert!(
        icmp.len() >= 8 + header + 8 && icmp.len() <= before.len() - 14 + 8,
        "{} bytes quoted",
        icmp.len()
    );
    assert_eq!(icmp[8..], before[14..][..icmp.len() - 8], "what is quoted");
    (icmp[0], icmp[1], u32::from_be_bytes([icmp[4], icmp[5], icmp[6], icmp[7]]))
}
