//! Memory that is lent out with each chunk and read into again once it has come back.

use std::mem;

use bytes::{Bytes, BytesMut};

/// The chunk that was handed out last. Reading the next one into its memory, once nobody else holds
/// it, saves filling new memory with zeros.
#[derive(Debug, Default)]
pub(super) struct Lent(Bytes);

impl Lent {
    /// Remembers a chunk that is handed out.
    pub(super) fn lend(&mut self, chunk: &Bytes) {
        self.0 = chunk.clone();
    }

    /// Returns room for so many bytes, whatever is in it.
    pub(super) fn room(&mut self, length: usize) -> BytesMut {
        match mem::take(&mut self.0).try_into_mut() {
            Ok(mut buffer) if buffer.len() >= length => {
                buffer.truncate(length);
                buffer
            }
            _ => BytesMut::zeroed(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_only_when_nobody_else_holds_it() {
        let mut lent = Lent::default();
        let chunk = lent.room(100).freeze();
        let address = chunk.as_ptr();
        lent.lend(&chunk);
        assert_ne!(lent.room(100).as_ptr(), address, "somebody reads it still");
        lent.lend(&chunk);
        drop(chunk);
        let room = lent.room(50);
        assert_eq!((room.as_ptr(), room.len()), (address, 50));
    }
}
