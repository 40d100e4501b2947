//! Format version 2 is frozen: bytes that it wrote once are written still, and read by every later version, as those of
//! version 1 are.

use std::{fs, path::PathBuf};

use super::{
    super::format::{ENTRY_HEADER_BYTES, EntryCodec, EntryHeader, FIRST_ENTRY, file_header},
    *,
};

fn folder(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/journal-v{version}"))
}

const FILE_BYTES: u32 = 8 << 10;

fn entries() -> Vec<Entry> {
    let entry = |lane, position, records| Entry {
        lane: LaneId(lane),
        epoch: Epoch(1_700_000_000),
        position: Position(position),
        time_ms: 1_700_000_000_000 + position,
        records,
    };
    vec![
        entry(0, 1, row(5, 40)),
        entry(3, 1, outbox(&[b"one", b"two"])),
        entry(0, 2, outbox_done(Position(0))),
    ]
}

/// The segment: a group of two entries and a group of one.
fn segment() -> Vec<u8> {
    let codec = EntryCodec::new(DATA_SET, 1);
    let mut bytes = file_header(DATA_SET, 1, FILE_BYTES).to_vec();
    bytes.resize(FIRST_ENTRY as usize, 0);
    let mut group = FIRST_ENTRY;
    for (number, entry) in entries().iter().enumerate() {
        if number == 2 {
            group = u32::try_from(bytes.len()).unwrap();
        }
        let Entry {
            lane,
            epoch,
            position,
            time_ms,
            ref records,
        } = *entry;
        let length = u32::try_from(records.len()).unwrap();
        let header = EntryHeader {
            length,
            lane,
            flags: 0,
            group,
            epoch,
            position,
            time_ms,
        };
        bytes.extend_from_slice(&codec.encode(&header, records));
        bytes.extend_from_slice(records);
    }
    bytes.extend_from_slice(&codec.encode(&EntryHeader::seal(group), &[]));
    assert_eq!(
        codec.encode(&EntryHeader::seal(group), &[]).len(),
        ENTRY_HEADER_BYTES as usize
    );
    bytes.resize(FILE_BYTES as usize, 0);
    bytes
}

#[test]
fn the_bytes_of_version_2_are_written_as_ever() {
    assert!(
        fs::read(folder(2).join("0000000001.seg")).unwrap() == segment(),
        "the format has changed: give it a new version"
    );
}

#[test]
fn a_log_of_either_version_opens() {
    for version in [1, 2] {
        let directory = tempfile::tempdir().unwrap();
        let journal = directory.path().join("journal");
        fs::create_dir(&journal).unwrap();
        for name in ["0000000001.seg", "epoch"] {
            fs::copy(folder(version).join(name), journal.join(name)).unwrap();
        }
        let (log, found) =
            Log::open(directory.path(), small(), &ViewCheckpoint::default()).unwrap();
        assert_eq!(
            (found.entries, found.outbox_entries, found.cut_bytes),
            (3, 1, 0)
        );
        assert_eq!(sealed_entries(&log), entries());
        let claims = claim(&log);
        assert_eq!(claims[3].outbox.len(), 2);
        // The file says 4,000,000,000, which is later than any clock that this test will meet for a while.
        assert!(claims[0].epoch > Epoch(4_000_000_000));
    }
}
