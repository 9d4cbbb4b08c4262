#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::io;

use proptest::prelude::*;

use super::super::body_len;
use super::*;
use crate::error::Error;

/// A body in memory that counts how often it is read, and fails from an offset on.
struct Bytes {
    bytes: Vec<u8>,
    reads: Cell<usize>,
    fails_from: usize,
}

impl Bytes {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, reads: Cell::new(0), fails_from: usize::MAX }
    }
}

impl Source for Bytes {
    fn body_len(&self) -> Result<u64> {
        Ok(self.bytes.len() as u64)
    }

    fn opened_len(&self) -> Result<u64> {
        self.body_len()
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.reads.set(self.reads.get() + 1);
        let rest = &self.bytes[offset as usize..];
        if offset as usize + buf.len() > self.fails_from {
            return Err(Error::io("the file cannot be read", io::ErrorKind::Other.into()));
        }
        let len = buf.len().min(rest.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

/// Frames of so many plaintext bytes, which nobody verifies here, no two bytes' neighbours alike.
fn framed(lens: &[usize]) -> Vec<u8> {
    let mut body = Vec::new();
    for len in lens {
        body.extend((*len as u32).to_be_bytes());
        body.extend((0..len + FRAME_EXTRA - HEAD_LEN).map(|at| (at * 7 + len) as u8));
    }
    body
}

fn tails() -> impl Strategy<Value = (Vec<u8>, Option<TornReason>)> {
    let cut = framed(&[100]);
    prop_oneof![
        Just((vec![], None)),
        Just((vec![0; 3], Some(TornReason::Cut))),
        (HEAD_LEN..cut.len()).prop_map(move |len| (cut[..len].to_vec(), Some(TornReason::Cut))),
        (HEAD_LEN..100).prop_map(|len| (vec![0; len], Some(TornReason::Zeros))),
        // A length of nothing, and one that no frame has.
        Just(([&[0; 4][..], &[1; 16]].concat(), Some(TornReason::Length))),
        (HEAD_LEN..100).prop_map(|len| (vec![0xff; len], Some(TornReason::Length))),
    ]
}

proptest! {
    /// All frames are found, each once and in order, and what stands behind them, however much is
    /// read at once; and all that one read brings comes from one read.
    #[test]
    fn frames_are_found_however_much_is_read_at_once(
        lens in prop::collection::vec(1_usize..300, 0..20),
        (tail, reason) in tails(),
        read_len in prop_oneof![1_u64..600, Just(1 << 20)],
    ) {
        let body = [framed(&lens), tail].concat();
        let source = Bytes::new(body.clone());
        let mut window = Window::new(&source, body.len() as u64, read_len);
        let (mut at, mut found, mut some, mut calls) = (0, Vec::new(), Vec::new(), 0);
        let end = loop {
            let behind = window.frames(at, &mut some).unwrap();
            calls += 1;
            prop_assert!(!some.is_empty() || behind.is_some(), "{calls} calls");
            let len = body_len(some.iter().sum::<usize>() as u64, some.len() as u64);
            let bytes = window.bytes(at, len).unwrap();
            prop_assert_eq!(bytes, &body[at as usize..][..len as usize]);
            at += len;
            found.append(&mut some);
            match behind {
                None => {}
                Some(Next::Frame(_)) => prop_assert!(false, "a frame stands behind the frames"),
                Some(Next::End) => break None,
                Some(Next::Torn(reason)) => break Some(reason),
            }
        };
        prop_assert_eq!(&found, &lens);
        prop_assert_eq!(end, reason);
        // Once for the head of a frame, and once for those that are whole.
        prop_assert!(source.reads.get() <= 2 * calls);
        if read_len >= body.len() as u64 {
            prop_assert_eq!((calls, source.reads.get()), (1, usize::from(!body.is_empty())));
        }
        let claimed = claimed_len(body.len() as u64, &source).unwrap();
        prop_assert_eq!(claimed, lens.iter().sum::<usize>() as u64);
    }
}

#[test]
fn a_log_that_became_shorter_claims_what_is_left_and_one_that_cannot_be_read_nothing() {
    let lens = [5000, 6000, 7000];
    let mut source = Bytes::new(framed(&lens));
    let whole = source.bytes.len() as u64;
    let two = body_len(11_000, 2) as usize;
    assert_eq!(claimed_len(whole, &source).unwrap(), 18_000);
    source.fails_from = two;
    let error = claimed_len(whole, &source).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io(io::ErrorKind::Other));
    source.fails_from = usize::MAX;
    source.bytes.truncate(two);
    assert_eq!(claimed_len(whole, &source).unwrap(), 11_000);
}
