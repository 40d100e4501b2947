//! Compression of bodies by zstd, and its undoing within limits that are checked before any memory is taken.

use bytes::{BufMut, Bytes, BytesMut};
use zstd::zstd_safe;

use super::{Flags, Frame, FrameError, HEADER_BYTES, LENGTH_BYTES};
use crate::limits::{COMPRESS_BYTES_MIN, COMPRESS_RATIO_MAX, COMPRESS_WINDOW_LOG_MAX};

/// zstd's own default: beyond it, bodies of chat gain little and cost much.
const LEVEL: i32 = 3;
/// Index of the flags in a frame.
const FLAGS_AT: usize = 5;
/// First bytes of a zstd frame (RFC 8878, section 3.1.1); skippable frames begin otherwise.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Compresses the body of a whole encoded frame. `None` when it is to be sent as it is: smaller than
/// [`COMPRESS_BYTES_MIN`], compressed already, hardly smaller afterwards, or so much smaller that the receiver would refuse it.
#[must_use]
pub fn compress(frame: &Bytes) -> Option<Bytes> {
    let body = frame.get(HEADER_BYTES..)?;
    let flags = Flags::from_bits(frame[FLAGS_AT])?;
    if frame.len() < COMPRESS_BYTES_MIN || flags.contains(Flags::COMPRESSED) {
        return None;
    }
    let compressed = zstd::bulk::compress(body, LEVEL).ok()?;
    if compressed.len() >= body.len()
        || body.len() > compressed.len().saturating_mul(COMPRESS_RATIO_MAX)
    {
        return None;
    }
    let length = u32::try_from(HEADER_BYTES - LENGTH_BYTES + compressed.len()).ok()?;
    let mut out = BytesMut::with_capacity(HEADER_BYTES + compressed.len());
    out.put_slice(&frame[..HEADER_BYTES]);
    out[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    out[FLAGS_AT] = flags.with(Flags::COMPRESSED).bits();
    out.put_slice(&compressed);
    Some(out.freeze())
}

/// The frame with its body decompressed and the flag cleared; a frame that is not compressed comes back as it is.
/// `output_bytes_max` bounds the body.
///
/// The body must be exactly one zstd frame that names its size: so the size is known, and judged, before memory is taken, and
/// no window beside the output is needed.
///
/// # Errors
/// When the body is something else, would become larger than `output_bytes_max` or than [`COMPRESS_RATIO_MAX`] times itself,
/// or is damaged.
pub fn decompress(frame: Frame, output_bytes_max: usize) -> Result<Frame, FrameError> {
    if !frame.flags.contains(Flags::COMPRESSED) {
        return Ok(frame);
    }
    let output_bytes = judge(&frame.body, output_bytes_max)?;
    let body =
        zstd::bulk::decompress(&frame.body, output_bytes).map_err(|_| FrameError::Damaged)?;
    if body.len() != output_bytes {
        return Err(FrameError::Damaged);
    }
    Ok(Frame {
        flags: frame.flags.without(Flags::COMPRESSED),
        body: Bytes::from(body),
        ..frame
    })
}

/// How large the body will be, if that is allowed.
fn judge(body: &[u8], output_bytes_max: usize) -> Result<usize, FrameError> {
    if !body.starts_with(&MAGIC) {
        return Err(FrameError::NotOneZstdFrame);
    }
    let window_log = window_log(body).ok_or(FrameError::NotOneZstdFrame)?;
    if usize::from(window_log) > COMPRESS_WINDOW_LOG_MAX {
        return Err(FrameError::Window(window_log));
    }
    let declared = zstd_safe::get_frame_content_size(body);
    let Ok(Some(output_bytes)) = declared else {
        return Err(FrameError::NotOneZstdFrame);
    };
    let allowed = output_bytes_max.min(body.len().saturating_mul(COMPRESS_RATIO_MAX));
    let too_large = FrameError::Inflates {
        bytes: body.len(),
        output_bytes,
    };
    let output_bytes = usize::try_from(output_bytes)
        .ok()
        .filter(|bytes| *bytes <= allowed)
        .ok_or(too_large)?;
    match zstd_safe::find_frame_compressed_size(body) {
        Ok(bytes) if bytes == body.len() => Ok(output_bytes),
        _ => Err(FrameError::NotOneZstdFrame),
    }
}

/// The window that the frame's header asks for, rounded up to a power of two (RFC 8878, section 3.1.1.1.2); 0 when the
/// content is its own window.
fn window_log(body: &[u8]) -> Option<u8> {
    let descriptor = *body.get(MAGIC.len())?;
    let single_segment = descriptor & 0x20 != 0;
    if single_segment {
        return Some(0);
    }
    let window = *body.get(MAGIC.len() + 1)?;
    let mantissa = u8::from(window & 7 != 0);
    Some(10 + (window >> 3) + mantissa)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;
    use crate::frame::{self, FrameKind};
    use crate::ids::RequestId;
    use crate::v1;

    /// Text that shrinks to about a quarter.
    fn words(bytes: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut text = Vec::new();
        while text.len() < bytes {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            text.extend_from_slice(format!("word{} ", state >> 22).as_bytes());
        }
        text.truncate(bytes);
        text
    }

    fn whole(body: Vec<u8>) -> Bytes {
        let signal = v1::signal::Signal::Custom(body.into());
        let body = v1::Signal {
            conversation: Bytes::new(),
            signal: Some(signal),
        };
        frame::encode(FrameKind::Signal, RequestId(1), &body)
    }

    fn split(frame: &Bytes) -> Frame {
        frame::split(&mut BytesMut::from(&frame[..]), usize::MAX)
            .unwrap()
            .unwrap()
    }

    fn compressed(body: Vec<u8>) -> Frame {
        let flags = Flags::COMPRESSED;
        Frame {
            kind: FrameKind::Signal,
            flags,
            request_id: RequestId(1),
            body: body.into(),
        }
    }

    #[test]
    fn what_is_compressed_comes_back() {
        let frame = whole(words(60_000));
        let small = compress(&frame).unwrap();
        assert!(small.len() < frame.len() / 2);
        let split_small = split(&small);
        assert!(split_small.flags.contains(Flags::COMPRESSED));
        assert_eq!(decompress(split_small, 60_100), Ok(split(&frame)));
        assert_eq!(compress(&small), None, "twice is once too often");
        assert_eq!(
            decompress(split(&frame), 0),
            Ok(split(&frame)),
            "not compressed: as it is"
        );
    }

    #[test]
    fn small_frames_noise_and_what_the_receiver_would_refuse_stay_as_they_are() {
        let frame = whole(words(COMPRESS_BYTES_MIN - 100));
        assert_eq!(compress(&frame), None);
        let mut state = 7_u64;
        let noise = (0..4000).map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()[0]
        });
        assert_eq!(compress(&whole(noise.collect())), None);
        assert_eq!(compress(&whole(vec![b'a'; 60_000])), None);
        assert_eq!(compress(&Bytes::from_static(b"short")), None);
    }

    #[test]
    fn output_is_bounded_to_the_byte() {
        let text = words(5000);
        let body = zstd::bulk::compress(&text, 3).unwrap();
        assert!(decompress(compressed(body.clone()), 5000).is_ok());
        let refused = decompress(compressed(body.clone()), 4999).unwrap_err();
        assert_eq!(
            refused,
            FrameError::Inflates {
                bytes: body.len(),
                output_bytes: 5000
            }
        );
        assert_eq!(refused.code(), ErrorCode::DecompressionFailed);
    }

    #[test]
    fn a_bomb_is_refused_by_its_ratio() {
        let body = zstd::bulk::compress(&vec![0; 1_000_000], 3).unwrap();
        assert!(matches!(
            decompress(compressed(body), usize::MAX),
            Err(FrameError::Inflates {
                output_bytes: 1_000_000,
                ..
            })
        ));
    }

    #[test]
    fn a_lie_about_the_size_is_refused() {
        // Single segment, size in 4 bytes: 200 claimed, an empty raw last block given.
        let mut body = MAGIC.to_vec();
        body.extend_from_slice(&[0xa0, 200, 0, 0, 0, 1, 0, 0]);
        assert_eq!(
            decompress(compressed(body.clone()), 1000),
            Err(FrameError::Damaged)
        );
        body[5..9].copy_from_slice(&[0xff; 4]);
        assert!(matches!(
            decompress(compressed(body), usize::MAX),
            Err(FrameError::Inflates {
                output_bytes: 0xffff_ffff,
                ..
            })
        ));
    }

    #[test]
    fn exactly_one_zstd_frame_that_names_its_size_is_accepted() {
        let text = words(3000);
        let one = zstd::bulk::compress(&text, 3).unwrap();
        let trailing = [&one[..], &[0]].concat();
        let two = [&one[..], &one[..]].concat();
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9][..], &one[..]].concat();
        let cut = one[..one.len() - 1].to_vec();
        let mut unsized_frame = zstd::bulk::Compressor::new(3).unwrap();
        unsized_frame.include_contentsize(false).unwrap();
        let unsized_frame = unsized_frame.compress(&text).unwrap();
        for body in [
            trailing,
            two,
            skippable,
            cut,
            unsized_frame,
            Vec::new(),
            MAGIC.to_vec(),
        ] {
            let refused = decompress(compressed(body.clone()), usize::MAX);
            assert_eq!(
                refused,
                Err(FrameError::NotOneZstdFrame),
                "{} bytes",
                body.len()
            );
        }
    }

    #[test]
    fn a_window_beyond_the_limit_is_refused() {
        for (exponent, refused) in [(13, false), (14, true)] {
            // Size in 4 bytes, a window byte, an empty raw last block.
            let mut body = MAGIC.to_vec();
            body.extend_from_slice(&[0x80, exponent << 3, 0, 0, 0, 0, 1, 0, 0]);
            let result = decompress(compressed(body), 1000);
            assert_eq!(
                result == Err(FrameError::Window(10 + exponent)),
                refused,
                "{result:?}"
            );
        }
    }

    #[test]
    fn damage_anywhere_is_an_error_or_other_bytes_but_never_a_panic() {
        let body = zstd::bulk::compress(&words(2000), 3).unwrap();
        for index in 0..body.len() {
            for bit in 0..8 {
                let mut damaged = body.clone();
                damaged[index] ^= 1 << bit;
                if let Ok(frame) = decompress(compressed(damaged), 4000) {
                    assert!(frame.body.len() <= 4000);
                }
            }
        }
    }
}
