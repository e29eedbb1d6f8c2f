//! The socket between the proxy and a worker: whole packets, with open files beside them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::retry_on_intr;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, sendmsg, socketpair,
};

/// The longest packet, in bytes. One that is longer is an error on both sides.
pub(in crate::thumbnail) const MAX_PACKET: usize = 64 * 1024;

/// How many files go with a packet: a source and a place for results.
pub(super) const FILES: usize = 2;

/// Returns two connected ends; neither is inherited by programs.
pub(in crate::thumbnail) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends one packet and waits for nothing: there is always room for one.
///
/// # Errors
///
/// The other end is gone, does not read, or the packet is too long.
pub(in crate::thumbnail) fn send(
    socket: impl AsFd,
    packet: &[u8],
    files: &[BorrowedFd<'_>],
) -> io::Result<()> {
    if packet.len() > MAX_PACKET {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the packet is too long"));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many files"));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let parts = [IoSlice::new(packet)];
    retry_on_intr(|| sendmsg(&socket, &parts, &mut control, flags))?;
    Ok(())
}

/// Waits for a packet and returns it; nothing at the end. Files that come with it are closed unseen.
///
/// # Errors
///
/// The packet is longer than `buffer`, or the socket fails.
pub(in crate::thumbnail) fn receive(
    socket: impl AsFd,
    buffer: &mut [u8],
) -> io::Result<Option<&[u8]>> {
    let (_, length) = retry_on_intr(|| recv(&socket, &mut *buffer, RecvFlags::TRUNC))?;
    whole(buffer, length)
}

/// Waits for a packet and returns it and its files; nothing at the end.
///
/// # Errors
///
/// The packet is longer than `buffer`, or the socket fails.
pub(super) fn receive_files(
    socket: impl AsFd,
    buffer: &mut [u8],
) -> io::Result<Option<(&[u8], Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::TRUNC | RecvFlags::CMSG_CLOEXEC;
    let received = retry_on_intr(|| {
        recvmsg(&socket, &mut [IoSliceMut::new(&mut *buffer)], &mut control, flags)
    })?;
    let files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    let files = files.flatten().collect();
    Ok(whole(buffer, received.bytes)?.map(|packet| (packet, files)))
}

/// A packet is never empty, so nothing is the end.
fn whole(buffer: &[u8], length: usize) -> io::Result<Option<&[u8]>> {
    if length == 0 {
        return Ok(None);
    }
    let packet = buffer.get(..length);
    packet.map(Some).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a long packet"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thumbnail::samples;
    use std::fs::File;
    use std::io::{Read, Seek};

    #[test]
    fn files_arrive_with_their_packet() {
        let (here, there) = pair().unwrap();
        let (one, two) = (samples::file(b"one"), samples::file(b"two"));
        send(&here, b"packet", &[one.as_fd(), two.as_fd()]).unwrap();
        let mut buffer = [0; 16];
        let (packet, files) = receive_files(&there, &mut buffer).unwrap().expect("a packet");
        assert_eq!(packet, b"packet");
        let texts = files.into_iter().map(|file| {
            let (mut file, mut text) = (File::from(file), String::new());
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            text
        });
        assert_eq!(texts.collect::<Vec<_>>(), ["one", "two"]);
    }

    #[test]
    fn files_that_nobody_asked_for_are_closed() {
        let (here, there) = pair().unwrap();
        let (kept, sent) = pair().unwrap();
        send(&here, b"packet", &[sent.as_fd()]).unwrap();
        drop(sent);
        let mut buffer = [0; 16];
        assert_eq!(receive(&there, &mut buffer).unwrap(), Some(&b"packet"[..]));
        assert_eq!(receive(&kept, &mut buffer).unwrap(), None);
    }

    #[test]
    fn a_packet_that_is_too_long_is_an_error_on_both_sides() {
        let (here, there) = pair().unwrap();
        assert!(send(&here, &vec![b'x'; MAX_PACKET + 1], &[]).is_err());
        send(&here, b"seventeen letters", &[]).unwrap();
        send(&here, b"seventeen letters", &[]).unwrap();
        let mut buffer = [0; 16];
        assert!(receive(&there, &mut buffer).is_err());
        assert!(receive_files(&there, &mut buffer).is_err());
    }

    #[test]
    fn an_end_that_is_gone_is_the_end_and_nobody_can_send_to_it() {
        let (here, there) = pair().unwrap();
        drop(there);
        assert_eq!(receive(&here, &mut [0; 16]).unwrap(), None);
        assert!(send(&here, b"packet", &[]).is_err());
    }
}
