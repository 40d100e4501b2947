//! A small made chat in the corpus's form: several days, nicks that talk in turns and in bursts, answers to what was said.

#![allow(clippy::unwrap_used)] // as in every test

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

/// Writes `days` logs of `messages` messages each, gzipped; the same ones every time.
pub(crate) fn write(folder: &Path, days: usize, messages: usize) -> PathBuf {
    let path = folder.join("chat.jsonl.gz");
    let mut file = GzEncoder::new(File::create(&path).unwrap(), Compression::fast());
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    for day in 0..days {
        let mut nick = 0;
        for n in 0..messages {
            if dice.roll(3) > 0 {
                nick = dice.roll(20 + 5 * day);
            }
            let mut reply_to = String::new();
            if n > 0 && dice.roll(4) == 0 {
                let _ = write!(reply_to, ",\"reply_to\":[{}]", n - 1 - dice.roll(n.min(30)));
            }
            let text = format!(
                "{} {day} {n} \\u00fc {}",
                ["hi", "well", "see above"][dice.roll(3)],
                "x".repeat(dice.roll(200))
            );
            let line = format!(
                "{{\"channel\":\"made\",\"day\":\"day {day}\",\"n\":{n},\"at\":{},\"nick\":\"nick {nick}\",\"text\":\"{text}\"{reply_to}}}",
                60 * (n / 5)
            );
            writeln!(file, "{line}").unwrap();
        }
    }
    file.finish().unwrap();
    path
}

/// Xorshift.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }
}
