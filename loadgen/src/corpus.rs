//! Real chat as it is played: JSON lines, plain or gzip, one message a line. Each (channel, day) is one log.
//!
//! Nothing of the file is passed over in silence: a line that does not fit is an error with its number, and answers that
//! cannot be kept are counted.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use ahash::AHashMap;
use flate2::bufread::MultiGzDecoder;
use rialto_protocol::limits::{BODY_BYTES_MAX_DEFAULT, REPLY_TO_MAX};
use serde::Deserialize;

/// Bytes of a line: the longest text with every byte escaped, and as much again.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// First bytes of a gzip file (RFC 1952, section 2.3.1).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// How much of a file is played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// The first messages of the file; none: all.
    pub messages: Option<usize>,
    /// The first logs of the file; none: all.
    pub logs: Option<usize>,
}

/// A file that cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    /// It cannot be read, or its compression is damaged.
    #[error("{path}: {source}, after {lines} whole lines")]
    Read {
        /// The file.
        path: PathBuf,
        /// Lines read before that.
        lines: u64,
        /// The cause.
        source: std::io::Error,
    },
    /// A line does not fit.
    #[error("{path}, line {line}: {problem}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        problem: String,
    },
    /// There is nothing to play.
    #[error("{0} holds no messages")]
    Empty(PathBuf),
}

/// Everything that is to be played.
#[derive(Debug, Default)]
pub struct Corpus {
    /// In the order in which they begin in the file.
    pub logs: Vec<Log>,
    /// Every nick once; messages name it by index.
    pub nicks: Vec<String>,
    /// Messages of all logs.
    pub messages: usize,
    /// Answers to lines that do not stand before them in their log (a line left out of it, or the line itself).
    pub replies_unresolved: usize,
    /// Answers beyond the most that one message may name.
    pub replies_cut: usize,
}

/// One day of one channel.
#[derive(Debug)]
pub struct Log {
    /// The channel's name.
    pub channel: String,
    /// The day's name.
    pub day: String,
    /// In the order of the file.
    pub messages: Vec<Message>,
}

/// Something that somebody said.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// Index into [`Corpus::nicks`].
    pub nick: usize,
    /// Seconds since the day's midnight; to a minute's precision in the log.
    pub at_s: u32,
    /// What was said.
    pub text: String,
    /// Indices of the messages of the same log that it answers, each smaller than its own.
    pub reply_to: Vec<usize>,
}

#[derive(Deserialize)]
struct Line {
    channel: String,
    day: String,
    n: u64,
    at: u32,
    nick: String,
    text: String,
    #[serde(default)]
    reply_to: Vec<u64>,
}

impl Corpus {
    /// Reads a file, gzip or plain by its first bytes.
    ///
    /// # Errors
    /// When it cannot be read, a line does not fit, or nothing is in it.
    pub fn read(path: &Path, limit: Limit) -> Result<Self, CorpusError> {
        let failed = |source| CorpusError::Read {
            path: path.to_owned(),
            lines: 0,
            source,
        };
        let mut file = BufReader::with_capacity(1 << 16, File::open(path).map_err(failed)?);
        if file.fill_buf().map_err(failed)?.starts_with(&GZIP_MAGIC) {
            Self::read_lines(path, BufReader::new(MultiGzDecoder::new(file)), limit)
        } else {
            Self::read_lines(path, file, limit)
        }
    }

    fn read_lines(
        path: &Path,
        mut reader: impl BufRead,
        limit: Limit,
    ) -> Result<Self, CorpusError> {
        let mut building = Building::default();
        let mut bytes = Vec::new();
        let mut lines = 0;
        while limit
            .messages
            .is_none_or(|most| building.corpus.messages < most)
        {
            bytes.clear();
            let read = reader
                .by_ref()
                .take(LINE_BYTES_MAX)
                .read_until(b'\n', &mut bytes);
            if read.map_err(|source| CorpusError::Read {
                path: path.to_owned(),
                lines,
                source,
            })? == 0
            {
                break;
            }
            lines += 1;
            let added = if bytes.len() as u64 == LINE_BYTES_MAX && bytes.last() != Some(&b'\n') {
                Err(format!("longer than {LINE_BYTES_MAX} bytes"))
            } else {
                serde_json::from_slice(&bytes)
                    .map_err(|error| error.to_string())
                    .and_then(|line| building.add(line, limit.logs))
            };
            added.map_err(|problem| CorpusError::Line {
                path: path.to_owned(),
                line: lines,
                problem,
            })?;
        }
        if building.corpus.messages == 0 {
            return Err(CorpusError::Empty(path.to_owned()));
        }
        Ok(building.corpus)
    }
}

/// A corpus while its lines are read.
#[derive(Default)]
struct Building {
    corpus: Corpus,
    nicks: AHashMap<String, usize>,
    logs: AHashMap<(String, String), OpenLog>,
}

/// Where a log stands, and where each of its numbers does.
struct OpenLog {
    index: usize,
    at: AHashMap<u64, usize>,
}

impl Building {
    /// Adds a line, unless it opens a log beyond `logs_max`.
    fn add(&mut self, line: Line, logs_max: Option<usize>) -> Result<(), String> {
        if line.text.len() > BODY_BYTES_MAX_DEFAULT {
            return Err(format!(
                "a text of {} bytes; at most {BODY_BYTES_MAX_DEFAULT} can be sent",
                line.text.len()
            ));
        }
        let key = (line.channel, line.day);
        if !self.logs.contains_key(&key) {
            if logs_max.is_some_and(|most| self.logs.len() >= most) {
                return Ok(());
            }
            let (channel, day) = key.clone();
            self.logs.insert(
                key.clone(),
                OpenLog {
                    index: self.corpus.logs.len(),
                    at: AHashMap::new(),
                },
            );
            self.corpus.logs.push(Log {
                channel,
                day,
                messages: Vec::new(),
            });
        }
        let Some(open) = self.logs.get_mut(&key) else {
            return Ok(());
        };
        let messages = &mut self.corpus.logs[open.index].messages;
        let mut reply_to: Vec<usize> = line
            .reply_to
            .iter()
            .filter_map(|answered| open.at.get(answered).copied())
            .collect();
        self.corpus.replies_unresolved += line.reply_to.len() - reply_to.len();
        reply_to.sort_unstable();
        reply_to.dedup();
        self.corpus.replies_cut += reply_to.len().saturating_sub(REPLY_TO_MAX);
        reply_to.truncate(REPLY_TO_MAX);
        if open.at.insert(line.n, messages.len()).is_some() {
            return Err(format!(
                "number {} stands twice in the log of {} on {}",
                line.n, key.0, key.1
            ));
        }
        let next = self.nicks.len();
        let nick = *self.nicks.entry(line.nick).or_insert_with_key(|nick| {
            self.corpus.nicks.push(nick.clone());
            next
        });
        messages.push(Message {
            nick,
            at_s: line.at,
            text: line.text,
            reply_to,
        });
        self.corpus.messages += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn line(day: &str, n: u64, nick: &str, reply_to: &str) -> String {
        format!(
            "{{\"channel\":\"c\",\"day\":\"{day}\",\"n\":{n},\"at\":60,\"nick\":\"{nick}\",\"text\":\"text {n}\"{reply_to}}}\n"
        )
    }

    fn read(text: &[u8], limit: Limit) -> Result<Corpus, CorpusError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        Corpus::read(file.path(), limit)
    }

    fn small() -> String {
        [
            line("1", 0, "ann", ""),
            line("1", 3, "bob", ",\"reply_to\":[0]"),
            line("2", 0, "bob", ",\"reply_to\":[]"),
            line("1", 4, "ann", ",\"reply_to\":[3,0,4,9]"),
        ]
        .concat()
    }

    #[test]
    fn logs_nicks_and_answers_are_kept_in_the_order_of_the_file() {
        let corpus = read(small().as_bytes(), Limit::default()).unwrap();
        assert_eq!(
            (corpus.messages, corpus.logs.len(), corpus.nicks.len()),
            (4, 2, 2)
        );
        let first = &corpus.logs[0].messages;
        assert_eq!(
            first[2],
            Message {
                nick: 0,
                at_s: 60,
                text: "text 4".into(),
                reply_to: vec![0, 1]
            }
        );
        assert_eq!(
            corpus.replies_unresolved, 2,
            "its own number, and one that the log does not hold"
        );
    }

    #[test]
    fn gzip_in_several_members_reads_as_one_file() {
        let text = small();
        let (head, tail) = text.as_bytes().split_at(100);
        let packed = [head, tail].map(|part| {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(part).unwrap();
            gzip.finish().unwrap()
        });
        assert_eq!(
            read(&packed.concat(), Limit::default()).unwrap().messages,
            4
        );
        let torn = read(&packed[0][..packed[0].len() - 9], Limit::default());
        assert!(
            matches!(
                torn,
                Err(CorpusError::Read { .. } | CorpusError::Line { .. })
            ),
            "a torn file is no shorter file"
        );
    }

    #[test]
    fn limits_take_the_first_messages_or_the_first_logs() {
        let text = small();
        let messages = read(
            text.as_bytes(),
            Limit {
                messages: Some(2),
                logs: None,
            },
        )
        .unwrap();
        assert_eq!((messages.messages, messages.logs.len()), (2, 1));
        let logs = read(
            text.as_bytes(),
            Limit {
                messages: None,
                logs: Some(1),
            },
        )
        .unwrap();
        assert_eq!((logs.messages, logs.logs.len()), (3, 1));
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        let missing = line("1", 5, "x", "").replace("\"nick\":\"x\",", "");
        for (bad, says) in [
            ("{\"channel\":1}\n".to_owned(), "invalid type"),
            ("\n".to_owned(), "EOF"),
            (missing, "nick"),
            (line("1", 0, "ann", ""), "stands twice"),
            (
                line("1", 7, "\u{fffd}", "")
                    .replace("text 7", &"x".repeat(BODY_BYTES_MAX_DEFAULT + 1)),
                "at most",
            ),
        ] {
            let error = read((small() + &bad).as_bytes(), Limit::default())
                .unwrap_err()
                .to_string();
            assert!(
                error.contains("line 5: ") && error.contains(says),
                "{error}"
            );
        }
        let not_utf8 = [small().as_bytes(), b"{\"channel\":\"\xff\"}"].concat();
        assert!(
            read(&not_utf8, Limit::default())
                .unwrap_err()
                .to_string()
                .contains("line 5")
        );
        assert!(matches!(
            read(b"", Limit::default()),
            Err(CorpusError::Empty(_))
        ));
    }

    #[test]
    fn answers_beyond_the_most_that_one_message_may_name_are_counted() {
        let mut text: String = (0..20).map(|n| line("1", n, "ann", "")).collect();
        text += &line(
            "1",
            20,
            "bob",
            &format!(",\"reply_to\":{:?}", (0..20).collect::<Vec<_>>()),
        );
        let corpus = read(text.as_bytes(), Limit::default()).unwrap();
        assert_eq!(
            (
                corpus.logs[0].messages[20].reply_to.len(),
                corpus.replies_cut
            ),
            (REPLY_TO_MAX, 4)
        );
    }
}
