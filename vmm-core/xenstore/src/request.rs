//! What each request does: one function for each kind (Xen, `docs/misc/xenstore.txt`).

use alloc::vec::Vec;
use core::fmt::Write as _;

use abi::DomId;
use abi::xs_wire::{MsgHeader, PAYLOAD_MAX, kind};
use lists::TryPush as _;

use crate::perms::Who;
use crate::store::Store;
use crate::transaction::{Found, Transaction};
use crate::tree::ROOT;
use crate::watch::Watch;
use crate::{Access, Error, Path, PathBuf, Perms, text};

/// What a reply holds.
enum Answer {
    Ok,
    /// As `Ok`; the first event of the watch that was added last follows.
    Watching,
    Bytes(Vec<u8>),
}

/// A request: who asks, in which transaction, and the body.
struct Request<'a> {
    who: DomId,
    /// The place of the transaction in the domain's list.
    transaction: Option<usize>,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    /// The body as one word with a NUL at its end.
    fn word(&self) -> Result<&'a [u8], Error> {
        match self.body.split_last() {
            Some((0, word)) if !word.contains(&0) => Ok(word),
            _ => Err(Error::Einval),
        }
    }

    /// The first word, and all behind its NUL.
    fn split(&self) -> Result<(&'a [u8], &'a [u8]), Error> {
        let end = self.body.iter().position(|&b| b == 0);
        let (word, rest) = self
            .body
            .split_at_checked(end.ok_or(Error::Einval)?)
            .ok_or(Error::Einval)?;
        Ok((word, rest.get(1..).unwrap_or(&[])))
    }

    /// Two words.
    fn pair(&self) -> Result<(&'a [u8], &'a [u8]), Error> {
        let (first, rest) = self.split()?;
        match rest.split_last() {
            Some((0, second)) if !second.contains(&0) => Ok((first, second)),
            _ => Err(Error::Einval),
        }
    }
}

impl Store {
    /// Carries out the request that is complete in the domain's inbox. The reply waits in its
    /// outbox then, and events for whom they concern.
    pub fn process(&mut self, id: DomId) {
        while !self.bury() {}
        let Some(connection) = self.connection(id) else {
            return;
        };
        // Without memory for a reply the request waits; it stays complete.
        if connection.outbox.reserve().is_err() {
            return;
        }
        let (header, body) = connection.inbox.take();
        match self.dispatch(id, header, &body) {
            Ok(Answer::Ok) => self.reply(id, header, b"OK\0"),
            Ok(Answer::Bytes(bytes)) => self.reply(id, header, &bytes),
            Ok(Answer::Watching) => {
                self.reply(id, header, b"OK\0");
                let quotas = self.quotas;
                if let Some(connection) = self.connection(id) {
                    let last = connection.watches.len().saturating_sub(1);
                    connection.send_own_event(&quotas, last);
                }
            }
            Err(error) => self.refuse(id, header, error),
        }
    }

    fn dispatch(&mut self, id: DomId, header: MsgHeader, body: &[u8]) -> Result<Answer, Error> {
        let mut request = Request {
            who: id,
            transaction: None,
            body,
        };
        if self.short && grows(header) {
            return Err(Error::Enomem);
        }
        match header.kind {
            kind::WATCH => return self.watch(&request),
            kind::UNWATCH => return self.unwatch(&request),
            kind::CONTROL
            | kind::INTRODUCE
            | kind::RELEASE
            | kind::IS_DOMAIN_INTRODUCED
            | kind::RESUME
            | kind::SET_TARGET => return Err(Error::Eacces),
            _ => {}
        }
        if header.tx_id != 0 {
            let connection = self.connection(id).ok_or(Error::Enoent)?;
            let open = connection.transaction(header.tx_id);
            request.transaction = Some(open.ok_or(Error::Enoent)?);
        }
        match header.kind {
            kind::DIRECTORY => self.directory(&request),
            kind::DIRECTORY_PART => self.directory_part(&request),
            kind::READ => self.read(&request),
            kind::GET_PERMS => self.get_perms(&request),
            kind::WRITE => self.write(&request),
            kind::MKDIR => self.mkdir(&request),
            kind::RM => self.rm(&request),
            kind::SET_PERMS => self.change_perms(&request),
            kind::TRANSACTION_START => self.transaction_start(&request),
            kind::TRANSACTION_END => self.transaction_end(&request),
            kind::GET_DOMAIN_PATH => domain_path(&request),
            kind::RESET_WATCHES => {
                self.connection(id).ok_or(Error::Enoent)?.reset();
                Ok(Answer::Ok)
            }
            _ => Err(Error::Enosys),
        }
    }

    fn reply(&mut self, id: DomId, header: MsgHeader, body: &[u8]) {
        if body.len() > PAYLOAD_MAX as usize {
            return self.refuse(id, header, Error::E2big);
        }
        let Some(connection) = self.connection(id) else {
            return;
        };
        match connection.outbox.reply(header, body) {
            Ok(cost) => connection.usage.charge_always(cost),
            Err(error) => self.refuse(id, header, error),
        }
    }

    fn refuse(&mut self, id: DomId, header: MsgHeader, error: Error) {
        let mut name = heapless::Vec::<u8, 16>::new();
        for byte in error.name().bytes().chain([0]) {
            // The names are short.
            let _ = name.push(byte);
        }
        let header = MsgHeader {
            kind: kind::ERROR,
            ..header
        };
        let Some(connection) = self.connection(id) else {
            return;
        };
        // There is room: it was reserved, and the body is short.
        if let Ok(cost) = connection.outbox.reply(header, &name) {
            connection.usage.charge_always(cost);
        }
    }

    /// The node at `path` as the request sees it.
    fn look(&mut self, request: &Request<'_>, path: Path<'_>) -> Result<Option<Found>, Error> {
        let Some(index) = request.transaction else {
            return Ok(self.tree.find(path).map(Found::Node));
        };
        let quotas = self.quotas;
        let at = self.place(request.who).map_err(|_| Error::Enoent)?;
        let Self {
            tree, connections, ..
        } = self;
        let connection = connections.get_mut(at).ok_or(Error::Enoent)?;
        let transaction = connection
            .transactions
            .get_mut(index)
            .ok_or(Error::Enoent)?;
        let before = transaction.cost;
        let found = if transaction.touched() >= quotas.transaction_nodes {
            Err(Error::Enospc)
        } else {
            transaction.touch(tree, path)
        };
        let grown = transaction.cost.saturating_sub(before);
        let charged = connection.usage.charge(&quotas, grown);
        if charged.is_err() {
            connection.usage.charge_always(grown);
        }
        let result = charged.and(found);
        // What was not noted cannot be checked at commit.
        transaction.failed |= result.is_err();
        result
    }

    fn value(&self, request: &Request<'_>, found: Found) -> &[u8] {
        match found {
            Found::Node(id) => self.tree.get(id).map_or(&[], |node| &node.value),
            Found::Written(at) => self
                .peek(request)
                .and_then(|transaction| transaction.written(at))
                .map_or(&[], |written| &written.value),
        }
    }

    fn perms(&self, request: &Request<'_>, found: Found) -> Option<&Perms> {
        match found {
            Found::Node(id) => self.tree.get(id).map(|node| &node.perms),
            Found::Written(at) => Some(&self.peek(request)?.written(at)?.perms),
        }
    }

    fn peek(&self, request: &Request<'_>) -> Option<&Transaction> {
        let at = self.place(request.who).ok()?;
        self.connections
            .get(at)?
            .transactions
            .get(request.transaction?)
    }

    /// The node at `path`, with which the client may do `need`; `None` when there is none and the
    /// client may know that.
    fn get(
        &mut self,
        request: &Request<'_>,
        path: Path<'_>,
        need: Access,
    ) -> Result<Option<Found>, Error> {
        let who = Who::Domain(request.who);
        if let Some(found) = self.look(request, path)? {
            let may = self
                .perms(request, found)
                .map_or(Access::empty(), |perms| perms.of(who));
            return if may.contains(need) {
                Ok(Some(found))
            } else {
                Err(Error::Eacces)
            };
        }
        // Whether there is a node is for those to know that may use what lies above.
        let above = self.nearest(request, path)?;
        let may = self
            .perms(request, above)
            .map_or(Access::empty(), |perms| perms.of(who));
        if may.intersects(need) {
            Ok(None)
        } else {
            Err(Error::Eacces)
        }
    }

    /// The lowest node above `path`.
    fn nearest(&mut self, request: &Request<'_>, path: Path<'_>) -> Result<Found, Error> {
        let mut at = path;
        loop {
            at = at.parent();
            if let Some(found) = self.look(request, at)? {
                return Ok(found);
            }
            if at.is_root() {
                return Ok(Found::Node(ROOT));
            }
        }
    }

    fn readable(&mut self, request: &Request<'_>, path: Path<'_>) -> Result<Found, Error> {
        self.get(request, path, Access::READ)?.ok_or(Error::Enoent)
    }

    fn directory(&mut self, request: &Request<'_>) -> Result<Answer, Error> {
        let mut buffer = PathBuf::default();
        let path = plain(request.word()?, request.who, &mut buffer)?;
        let found = self.readable(request, path)?;
        self.names(request, path, found).map(Answer::Bytes)
    }

    /// The names of a node's children, each with a NUL behind it.
    fn names(&self, request: &Request<'_>, path: Path<'_>, found: Found) -> Result<Vec<u8>, Error> {
        let mut names = Vec::new();
        let mut complete = true;
        let mut show = |name: &str| {
            complete = complete
                && lists::append(&mut names, name.as_bytes()).is_ok()
                && lists::append(&mut names, &[0]).is_ok();
        };
        match (self.peek(request), found) {
            (Some(transaction), _) => transaction.children(&self.tree, path, show),
            (None, Found::Node(id)) => self.tree.children(id).for_each(&mut show),
            (None, Found::Written(_)) => {}
        }
        if complete {
            Ok(names)
        } else {
            Err(Error::Enomem)
        }
    }

    /// A list of children in pieces: the client says how many bytes it has.
    fn directory_part(&mut self, request: &Request<'_>) -> Result<Answer, Error> {
        let (name, offset) = request.pair()?;
        let mut buffer = PathBuf::default();
        let path = plain(name, request.who, &mut buffer)?;
        let found = self.readable(request, path)?;
        let offset = decimal(offset).ok_or(Error::Einval)?;
        let generation = match found {
            Found::Node(id) => self.tree.get(id).map_or(0, |node| node.generation),
            Found::Written(_) => self.tree.generation(),
        };
        let names = self.names(request, path, found)?;
        let mut head = heapless::String::<24>::new();
        let _ = write!(head, "{generation}\0");
        let mut answer = text::bytes(head.as_bytes())?;
        let rest = names.get(offset as usize..).unwrap_or(&[]);
        let room = (PAYLOAD_MAX as usize)
            .saturating_sub(head.len())
            .saturating_sub(1);
        answer.try_reserve_exact(rest.len().min(room).saturating_add(1))?;
        let mut taken = 0usize;
        for name in rest.split_inclusive(|&b| b == 0) {
            let end = taken.saturating_add(name.len());
            if end > room {
                break;
            }
            lists::append(&mut answer, name)?;
            taken = end;
        }
        if taken == rest.len() {
            // An empty name ends the list.
            lists::append(&mut answer, &[0])?;
        }
        Ok(Answer::Bytes(answer))
    }

    fn read(&mut self, request: &Request<'_>) -> Result<Answer, Error> {
        let mut buffer = PathBuf::default();
        let path = plain(request.word()?, request.who, &mut buffer)?;
        let found = self.readable(request, path)?;
        text::bytes(self.value(request, found)).map(Answer::Bytes)
    }

    fn get_perms(&mut self, request: &Request<'_>) -> Result<Answer, Error> {
        let mut buffer = PathBuf::default();
        let path = plain(request.word()?, request.who, &mut buffer)?;
        let found = self.readable(request, path)?;
        let perms = self.perms(request, found).ok_or(Error::Enoent)?;
        text::bytes(perms.words().as_bytes()).map(Answer::Bytes)
    }

    fn write(&mut self, request: &Request<'_>) -> Result<Answer, Error> {
        let (name, value) = request.split()?;
        let mut buffer = PathBuf::default();
        let path = plain(name, request.who, &mut buffer)?;
        let value = text::bytes(value)?;
        match self.get(request, path, Access::WRITE)? {
            Some(found) => self.overwrite(request, path, found, value)?,
            None => self.make(request, path, value)?,
        }
        Ok(Answer::Ok)
    }

    fn overwrite(
        &mut self,
        request: &Request<'_>,
        path: Path<'_>,
        found: Found,
        value: Vec<u8>,
    ) -> Result<(), Error> {
        if request.transaction.is_none()
            && let Found::Node(id) = found
        {
            self.set_value(Who::Domain(request.who), id, value)?;
            self.tell(path, None);
            return Ok(());
        }
        let perms = self.perms(request, found).ok_or(Error::Enoent)?.clone();
        self.in_transaction(request, &value, |transaction, value| {
            transaction.set(path, value, perms);
        })
    }

    /// Makes a node that is not there.
    fn make(&mut self, request: &Request<'_>, path: Path<'_>, value: Vec<u8>) -> Result<(), Error> {
        let who = Who::Domain(request.who);
        if request.transaction.is_none() {
            self.create(who, path, value)?;
            self.tell(path, None);
            return Ok(());
        }
        let above = self.nearest(request, path)?;
        let perms = self
            .perms(request, above)
            .ok_or(Error::Enoent)?
            .inherited(who);
        for prefix in path.prefixes() {
            if prefix != path && self.look(request, prefix)?.is_none() {
                let perms = perms.clone();
                self.in_transaction(request, &[], |transaction, value| {
                    transaction.create(prefix, value, perms, false);
                })?;
            }
        }
        self.in_transaction(request, &value, |transaction, value| {
            transaction.create(path, value, perms, true);
        })
    }

    /// Lets a transaction keep a copy of `value`, within the quotas.
    fn in_transaction(
        &mut self,
        request: &Request<'_>,
        value: &[u8],
        keep: impl FnOnce(&mut Transaction, Vec<u8>),
    ) -> Result<(), Error> {
        let quotas = self.quotas;
        if value.len() > quotas.node_size {
            return Err(Error::Enospc);
        }
        let copy = text::bytes(value)?;
        let connection = self.connection(request.who).ok_or(Error::Enoent)?;
        connection.usage.charge(&quotas, value.len())?;
        connection.usage.release(value.len());
        let index = request.transaction.ok_or(Error::Enoent)?;
        let transaction = connection
            .transactions
            .get_mut(index)
            .ok_or(Error::Enoent)?;
        let before = transaction.cost;
        keep(transaction, copy);
        let after = transaction.cost;
        connection.usage.charge_always(after);
        connection.usage.release(before);
        Ok(())
    }

    fn mkdir(&mut self, request: &Request<'_>) -> Result<Answer, Error> {
        let mut buffer = PathBuf::default();
        let path = plain(request.word()?, request.who, &mut buffer)?;
        if self.get(request, path, Access::WRITE)?.is_none() {
            self.make(request, path, Vec::new())?;
        }
        Ok(Answer::Ok)
    }

    fn rm(&mut self, request: &Request<'_>) -> Result<Answer, Error> {
        let mut buffer = PathBuf::default();
        let path = plain(request.word()?, request.who, &mut buffer)?;
        let Some(found) = self.get(request, path, Access::WRITE)? else {
            // That it is not there is fine, if what lies above is.
            self.look(request, path.parent())?.ok_or(Error::Enoent)?;
            return Ok(Answer::Ok);
        };
        if path.is_root() {
            return Err(Error::Einval);
        }
        if request.transaction.is_none() {
            if let Found::Node(id) = found {
                self.remove(path, id);
            }
            return Ok(Answer::Ok);
        }
        // The list of children of what lies above changes.
        self.look(request, path.parent())?;
        let at = self.place(request.who).map_err(|_| Error::Enoent)?;
        let Self {
            tree, connections, ..
        } = self;
        let connection = connections.get_mut(at).ok_or(Error::Enoent)?;
        let index = request.transaction.ok_or(Error::Enoent)?;
        if let Some(transaction) = connection.transactions.get_mut(index) {
            let before = transaction.cost;
            transaction.remove(tree, path);
            connection.usage.charge_always(transaction.cost);
            connection.usage.release(before);
        }
        Ok(Answer::Ok)
    }

    fn change_perms(&mut self, request: &Request<'_>) -> Result<Answer, Error> {
        let (name, words) = request.split()?;
        let words = match words.split_last() {
            Some((0, words)) => words,
            _ => return Err(Error::Einval),
        };
        let known = |id| id == DomId::CONTROL || self.place(id).is_ok();
        let perms = Perms::parse(words.split(|&b| b == 0), known)?;
        let mut buffer = PathBuf::default();
        let path = plain(name, request.who, &mut buffer)?;
        let found = self
            .get(request, path, Access::WRITE | Access::OWN)?
            .ok_or(Error::Enoent)?;
        let owner = self.perms(request, found).map(Perms::owner);
        if owner != Some(perms.owner()) {
            return Err(Error::Eperm);
        }
        if request.transaction.is_none()
            && let Found::Node(id) = found
        {
            let old = self.set_perms(id, perms)?;
            self.tell(path, Some(&old));
            return Ok(Answer::Ok);
        }
        let value = text::bytes(self.value(request, found))?;
        self.in_transaction(request, &value, |transaction, value| {
            transaction.set(path, value, perms);
        })?;
        Ok(Answer::Ok)
    }

    fn watch(&mut self, request: &Request<'_>) -> Result<Answer, Error> {
        let (name, token) = request.pair()?;
        let mut buffer = PathBuf::default();
        let relative = !name.starts_with(b"/") && !name.starts_with(b"@");
        let path = Path::parse(name, request.who, &mut buffer)?;
        let quotas = self.quotas;
        let connection = self.connection(request.who).ok_or(Error::Enoent)?;
        if connection.watches.iter().any(|watch| watch.is(path, token)) {
            return Err(Error::Eexist);
        }
        if connection.watches.len() >= quotas.watches {
            return Err(Error::Enospc);
        }
        let watch = Watch::new(path, token, relative)?;
        let cost = watch.cost();
        connection.usage.charge(&quotas, cost)?;
        let added = connection.watches.try_push(watch);
        added.inspect_err(|_| connection.usage.release(cost))?;
        Ok(Answer::Watching)
    }

    fn unwatch(&mut self, request: &Request<'_>) -> Result<Answer, Error> {
        let (name, token) = request.pair()?;
        let mut buffer = PathBuf::default();
        let path = Path::parse(name, request.who, &mut buffer)?;
        let connection = self.connection(request.who).ok_or(Error::Enoent)?;
        let at = connection
            .watches
            .iter()
            .position(|watch| watch.is(path, token))
            .ok_or(Error::Enoent)?;
        let watch = lists::remove(&mut connection.watches, at).ok_or(Error::Enoent)?;
        connection.usage.release(watch.cost());
        Ok(Answer::Ok)
    }

    fn transaction_start(&mut self, request: &Request<'_>) -> Result<Answer, Error> {
        if request.transaction.is_some() {
            return Err(Error::Ebusy);
        }
        let quotas = self.quotas;
        let connection = self.connection(request.who).ok_or(Error::Enoent)?;
        if connection.transactions.len() >= quotas.transactions {
            return Err(Error::Enospc);
        }
        let id = connection.transaction_id();
        let transaction = Transaction::new(id);
        let cost = transaction.cost;
        connection.usage.charge(&quotas, cost)?;
        let added = connection.transactions.try_push(transaction);
        added.inspect_err(|_| connection.usage.release(cost))?;
        let mut answer = heapless::String::<12>::new();
        let _ = write!(answer, "{id}\0");
        text::bytes(answer.as_bytes()).map(Answer::Bytes)
    }

    fn transaction_end(&mut self, request: &Request<'_>) -> Result<Answer, Error> {
        let commit = match request.word()? {
            b"T" => true,
            b"F" => false,
            _ => return Err(Error::Einval),
        };
        let connection = self.connection(request.who).ok_or(Error::Enoent)?;
        let index = request.transaction.ok_or(Error::Enoent)?;
        if index >= connection.transactions.len() {
            return Err(Error::Enoent);
        }
        let transaction = connection.transactions.swap_remove(index);
        connection.usage.release(transaction.cost);
        if commit {
            self.commit(request.who, transaction)?;
        }
        Ok(Answer::Ok)
    }
}

/// Whether a request can make the store keep more. Within a transaction everything does, but its
/// end.
const fn grows(header: MsgHeader) -> bool {
    match header.kind {
        kind::WRITE | kind::MKDIR | kind::SET_PERMS | kind::WATCH | kind::TRANSACTION_START => true,
        kind::TRANSACTION_END | kind::UNWATCH | kind::RESET_WATCHES => false,
        _ => header.tx_id != 0,
    }
}

/// A path that can be a node's.
fn plain<'a>(name: &'a [u8], who: DomId, buffer: &'a mut PathBuf) -> Result<Path<'a>, Error> {
    let path = Path::parse(name, who, buffer)?;
    if path.is_special() {
        Err(Error::Einval)
    } else {
        Ok(path)
    }
}

fn domain_path(request: &Request<'_>) -> Result<Answer, Error> {
    let id = decimal(request.word()?).ok_or(Error::Einval)?;
    let mut path = heapless::String::<32>::new();
    let _ = write!(path, "/local/domain/{id}\0");
    text::bytes(path.as_bytes()).map(Answer::Bytes)
}

/// A decimal number.
fn decimal(word: &[u8]) -> Option<u32> {
    let digits = word.iter().all(u8::is_ascii_digit);
    let text = core::str::from_utf8(word).ok()?;
    digits.then(|| text.parse().ok())?
}
