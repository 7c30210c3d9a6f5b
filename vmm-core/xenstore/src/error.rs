//! Why a request is refused (`xsd_errors`, `public/io/xs_wire.h`).

use alloc::collections::TryReserveError;

use lists::NoMemory;

/// An error, sent to the client by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The request makes no sense.
    Einval,
    /// The client may not.
    Eacces,
    /// There is such a watch already.
    Eexist,
    /// There is no such node, watch or transaction.
    Enoent,
    /// Memory, or the client's share of it, ran out.
    Enomem,
    /// A quota is used up.
    Enospc,
    /// There is no such request.
    Enosys,
    /// Transactions do not nest.
    Ebusy,
    /// The transaction met a change by somebody else.
    Eagain,
    /// The answer does not fit a message.
    E2big,
    /// Only the owner's owner may.
    Eperm,
}

impl Error {
    /// The name that the client reads.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Einval => "EINVAL",
            Self::Eacces => "EACCES",
            Self::Eexist => "EEXIST",
            Self::Enoent => "ENOENT",
            Self::Enomem => "ENOMEM",
            Self::Enospc => "ENOSPC",
            Self::Enosys => "ENOSYS",
            Self::Ebusy => "EBUSY",
            Self::Eagain => "EAGAIN",
            Self::E2big => "E2BIG",
            Self::Eperm => "EPERM",
        }
    }
}

impl From<NoMemory> for Error {
    fn from(_: NoMemory) -> Self {
        Self::Enomem
    }
}

impl From<TryReserveError> for Error {
    fn from(_: TryReserveError) -> Self {
        Self::Enomem
    }
}
