//! Faults that are planted between the core and the world, one against each guarantee.

/// A mistake of the shell that the checks have to notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plant {
    /// Entries are called durable when they are handed over.
    AckBeforeSync,
    /// Frames of one connection overtake each other.
    FramesReordered,
    /// Nothing is ever found to have been sent before.
    DedupeSkipped,
    /// The shell forgets to say that bytes were written.
    WakeUpLost,
    /// Events are delivered when they are handed over, acknowledged when they are durable.
    DeliveredBeforeSync,
    /// A former owner's refused append is taken for a success.
    FenceIgnored,
    /// The edge is not told whose right to read has ended.
    RemovalIgnored,
    /// Bytes are called written while nobody takes them.
    QueueUnbounded,
}

impl Plant {
    pub(crate) const ALL: [Self; 8] = [
        Self::AckBeforeSync,
        Self::FramesReordered,
        Self::DedupeSkipped,
        Self::WakeUpLost,
        Self::DeliveredBeforeSync,
        Self::FenceIgnored,
        Self::RemovalIgnored,
        Self::QueueUnbounded,
    ];

    /// The guarantee that it breaks.
    pub(crate) fn breaks(self) -> &'static str {
        match self {
            Self::AckBeforeSync => "G1",
            Self::FramesReordered => "G2",
            Self::DedupeSkipped => "G3",
            Self::WakeUpLost => "G4",
            Self::DeliveredBeforeSync => "G5",
            Self::FenceIgnored => "G6",
            Self::RemovalIgnored => "G7",
            Self::QueueUnbounded => "G8",
        }
    }
}
