//! The words that matter: keywords and names of built-in functions, found by one probe.

use super::functions;
use super::keywords;

/// Words that the classification asks for by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// Any other word, or none.
    Other,
    All,
    Alter,
    Analyze,
    As,
    Atomic,
    Autocommit,
    Backup,
    Begin,
    Binlog,
    Cache,
    Call,
    Case,
    Chain,
    Change,
    Character,
    Charset,
    Check,
    Checksum,
    Clone,
    Collate,
    Collation,
    Columns,
    /// UNION, EXCEPT, INTERSECT.
    Combine,
    Commit,
    Connection,
    Count,
    Create,
    CurrentRole,
    CurrentUser,
    Data,
    Databases,
    Deallocate,
    Default,
    Delete,
    Desc,
    Diagnostics,
    Do,
    Drop,
    Errors,
    Event,
    Events,
    Execute,
    Explain,
    Export,
    Extended,
    Fields,
    Flush,
    For,
    Format,
    Full,
    Function,
    Get,
    Global,
    Grant,
    Handler,
    Hard,
    Help,
    If,
    Import,
    In,
    Index,
    Indexes,
    InformationSchema,
    Insert,
    /// IGNORE, LOW_PRIORITY and the like.
    InsertOption,
    Install,
    Instance,
    Into,
    Isolation,
    Keys,
    Kill,
    Level,
    Limit,
    Load,
    Local,
    Lock,
    Loop,
    Names,
    New,
    Next,
    No,
    Not,
    Null,
    Offset,
    Old,
    Only,
    Open,
    Optimize,
    Or,
    Package,
    Password,
    Persist,
    PersistOnly,
    Prepare,
    Previous,
    Privileges,
    Procedure,
    Processlist,
    Profile,
    Purge,
    Query,
    Read,
    Recursive,
    Release,
    Rename,
    Repair,
    Repeat,
    Replace,
    Reset,
    Resignal,
    Resource,
    Restart,
    Revoke,
    Role,
    Rollback,
    Savepoint,
    SchemaDatabase,
    Select,
    Sequence,
    Session,
    Set,
    Share,
    Show,
    Shutdown,
    Signal,
    Soft,
    SqlCalcFoundRows,
    Start,
    Statement,
    Status,
    Stop,
    Storage,
    SystemSchema,
    Table,
    Tables,
    Temporary,
    To,
    Transaction,
    Trigger,
    Triggers,
    Truncate,
    Undo,
    Uninstall,
    Unlock,
    Update,
    Use,
    Values,
    Value,
    View,
    Warnings,
    While,
    With,
    Work,
    Write,
    Xa,
    // Functions whose calls are facts.
    FnLastInsertId,
    FnPreviousStatement,
    FnNamedLock,
    FnConnection,
    FnSequence,
    FnServerState,
    FnClassicHash,
}

/// What else is known of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flags(pub(super) u16);

impl Flags {
    /// Reserved in all servers: never an unquoted identifier, so its case says nothing.
    pub(super) const RESERVED: Self = Self(1);
    /// A keyword that may stand before `(` without being a call of a stored function.
    pub(super) const BEFORE_PAREN: Self = Self(1 << 1);
    /// The same, but a keyword in MySQL only.
    pub(super) const BEFORE_PAREN_MYSQL: Self = Self(1 << 2);
    /// A built-in function that only computes, in both flavours.
    pub(super) const PURE: Self = Self(1 << 3);
    /// The same, but in MySQL only.
    pub(super) const PURE_MYSQL: Self = Self(1 << 4);
    /// The same, but in MariaDB only.
    pub(super) const PURE_MARIA: Self = Self(1 << 5);
    /// A function only when `(` follows at once; with a blank between, the name of a stored one.
    /// <https://dev.mysql.com/doc/refman/8.4/en/function-resolution.html>
    pub(super) const ADJACENT: Self = Self(1 << 6);
    /// Begins or marks a statement that writes; in a query it can only be something misread.
    pub(super) const WRITES: Self = Self(1 << 7);
    /// In [`super::functions::SCHEMA_VIEWS`].
    pub(super) const SCHEMA_VIEW: Self = Self(1 << 8);

    /// A function that not all served versions have: see [`super::functions::exists`].
    pub(super) const VERSIONED: Self = Self(1 << 9);

    /// A keyword of MySQL: its case says nothing.
    pub(super) const KEYWORD_MYSQL: Self = Self(1 << 10);
    /// A keyword of MariaDB.
    pub(super) const KEYWORD_MARIA: Self = Self(1 << 11);
    /// Digests spell it otherwise than in upper case: see [`Entry::shown`].
    pub(super) const RESPELLED: Self = Self(1 << 12);
    /// The name of a type: what follows is no expression.
    pub(super) const TYPE: Self = Self(1 << 13);
    /// A keyword only when `(` follows at once. Unlike those of [`Self::ADJACENT`], it is the same function anyway.
    pub(super) const CALLED: Self = Self(1 << 14);

    pub(super) const NONE: Self = Self(0);

    pub(super) const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A word with letters folded, in two overlapping or adjacent halves: equal keys and equal lengths
/// up to 16 mean equal words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) first: u64,
    pub(super) last: u64,
}

/// Sets the bit that tells lower from upper case; maps no two identifier characters to one, other than letters.
const FOLD: u64 = 0x2020_2020_2020_2020;

impl Key {
    /// The key of the word at `start..end`, which must be inside `sql`.
    #[inline]
    pub(super) fn of(sql: &[u8], start: usize, end: usize) -> Self {
        let len = end - start;
        if let Some(head) = sql.get(start..).and_then(|rest| rest.first_chunk::<8>()) {
            let first = u64::from_le_bytes(*head);
            if len < 8 {
                let mask = (1u64 << (len * 8)) - 1;
                return Self {
                    first: (first | FOLD) & mask,
                    last: 0,
                };
            }
            let last = sql
                .get(..end)
                .and_then(|upto| upto.last_chunk::<8>())
                .map_or(0, |tail| u64::from_le_bytes(*tail));
            return Self {
                first: first | FOLD,
                last: last | FOLD,
            };
        }
        // Fewer than 8 bytes are left in the statement.
        let mut first = 0;
        for (index, &byte) in sql
            .get(start..end)
            .unwrap_or(&[])
            .iter()
            .take(8)
            .enumerate()
        {
            first |= u64::from(byte | 0x20) << (index * 8);
        }
        Self { first, last: 0 }
    }

    const fn of_text(text: &[u8]) -> Self {
        let len = text.len();
        let mut first = 0;
        let mut last = 0;
        let mut index = 0;
        while index < 8 && index < len {
            first |= ((text[index] | 0x20) as u64) << (index * 8);
            index += 1;
        }
        if len >= 8 {
            index = 0;
            while index < 8 {
                last |= ((text[len - 8 + index] | 0x20) as u64) << (index * 8);
                index += 1;
            }
        }
        Self { first, last }
    }

    #[inline]
    const fn slot(self, len: usize) -> usize {
        let mixed = (self.first ^ self.last.rotate_left(29))
            .wrapping_add(len as u64)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed >> (64 - SLOT_BITS)) as usize
    }
}

/// What is known of one word.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    key: Key,
    len: u8,
    pub(super) word: Word,
    pub(super) flags: Flags,
    text: &'static str,
}

impl Entry {
    /// The word in upper case.
    pub(super) fn text(&self) -> &'static str {
        self.text
    }

    /// As digests spell it: the same for words that are one token to the servers.
    #[cold]
    pub(super) fn shown(&self) -> &'static str {
        if self.text.starts_with('_') {
            return "_charset";
        }
        let known = keywords::SYNONYMS.iter();
        let mut known = known.filter(|(word, _)| *word == self.text);
        known.next().map_or(self.text, |(_, shown)| shown)
    }
}

/// The place of a word in the table, or of none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryId(pub(super) u16);

impl EntryId {
    /// No word of the table.
    pub(super) const NONE: Self = Self(0);

    #[inline]
    pub(super) fn entry(self) -> Option<&'static Entry> {
        if self.0 == 0 {
            return None;
        }
        TABLE.entries.get(usize::from(self.0))
    }
}

/// Finds the word at `start..end`, which must be inside `sql`, by its key.
#[inline(always)]
pub(super) fn find(key: Key, sql: &[u8], start: usize, end: usize) -> EntryId {
    let len = end - start;
    let is = |text: &str| {
        let bytes = sql.get(start..end).unwrap_or(&[]);
        bytes.eq_ignore_ascii_case(text.as_bytes())
    };
    let mut slot = key.slot(len);
    loop {
        let id = EntryId(TABLE.slots.get(slot).copied().unwrap_or(0));
        let Some(entry) = id.entry() else {
            return EntryId::NONE;
        };
        if entry.key == key && usize::from(entry.len) == len && (len <= 16 || is(entry.text)) {
            return id;
        }
        slot = (slot + 1) & (SLOTS - 1);
    }
}

/// Finds a word by its bytes alone.
pub(super) fn find_bytes(bytes: &[u8]) -> Option<&'static Entry> {
    find(Key::of(bytes, 0, bytes.len()), bytes, 0, bytes.len()).entry()
}

const SLOT_BITS: u32 = 13;
const SLOTS: usize = 1 << SLOT_BITS;
const CAPACITY: usize = 1700;

struct Table {
    /// Index into `entries`; 0 is free.
    slots: [u16; SLOTS],
    entries: [Entry; CAPACITY],
}

static TABLE: Table = Table::build();

impl Table {
    const fn build() -> Self {
        let free = Entry {
            key: Key { first: 0, last: 0 },
            len: 0,
            word: Word::Other,
            flags: Flags::NONE,
            text: "",
        };
        let mut table = Self {
            slots: [0; SLOTS],
            entries: [free; CAPACITY],
        };
        let mut used = 1;
        let mut index = 0;
        while index < KEYWORDS.len() {
            let (text, word, flags) = KEYWORDS[index];
            used = table.add(used, text, word, flags);
            index += 1;
        }
        index = 0;
        while index < functions::BUILT_IN.len() {
            let (names, word, flags) = functions::BUILT_IN[index];
            let mut name = 0;
            while name < names.len() {
                used = table.add(used, names[name], word, flags);
                name += 1;
            }
            index += 1;
        }
        let both = Flags::KEYWORD_MYSQL.and(Flags::KEYWORD_MARIA);
        used = table.add_all(used, keywords::BOTH, both);
        used = table.add_all(used, keywords::MYSQL, Flags::KEYWORD_MYSQL);
        used = table.add_all(used, keywords::MARIA, Flags::KEYWORD_MARIA);
        used = table.add_all(used, keywords::INTRODUCERS, both.and(Flags::RESPELLED));
        used = table.add_all(used, keywords::CALLED, Flags::CALLED);
        index = 0;
        while index < keywords::SYNONYMS.len() {
            used = table.add(
                used,
                keywords::SYNONYMS[index].0,
                Word::Other,
                Flags::RESPELLED,
            );
            index += 1;
        }
        table
    }

    /// Adds words with blanks between them.
    const fn add_all(&mut self, mut used: usize, words: &'static str, flags: Flags) -> usize {
        let mut rest = words;
        loop {
            let mut end = 0;
            let mut digits = false;
            while end < rest.len() && rest.as_bytes()[end] != b' ' {
                digits |= rest.as_bytes()[end].is_ascii_digit();
                end += 1;
            }
            let (word, tail) = rest.split_at(end);
            let respelled = if digits {
                Flags::RESPELLED
            } else {
                Flags::NONE
            };
            used = self.add(used, word, Word::Other, flags.and(respelled));
            if tail.is_empty() {
                return used;
            }
            rest = tail.split_at(1).1;
        }
    }

    /// Adds a word, or to a word that is there; returns the next free entry.
    const fn add(&mut self, used: usize, text: &'static str, word: Word, flags: Flags) -> usize {
        let bytes = text.as_bytes();
        let key = Key::of_text(bytes);
        let mut slot = key.slot(bytes.len());
        while self.slots[slot] != 0 {
            let entry = &mut self.entries[self.slots[slot] as usize];
            if entry.key.first == key.first
                && entry.key.last == key.last
                && entry.len as usize == bytes.len()
                && same_text(entry.text.as_bytes(), bytes)
            {
                entry.flags = entry.flags.and(flags);
                if matches!(entry.word, Word::Other) {
                    entry.word = word;
                }
                return used;
            }
            slot = (slot + 1) & (SLOTS - 1);
        }
        self.slots[slot] = used as u16;
        self.entries[used] = Entry {
            key,
            len: bytes.len() as u8,
            word,
            flags,
            text,
        };
        used + 1
    }
}

const fn same_text(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let mut index = 0;
    while index < left.len() {
        if left[index] != right[index] {
            return false;
        }
        index += 1;
    }
    true
}

const N: Flags = Flags::NONE;
const R: Flags = Flags::RESERVED;
const P: Flags = Flags::BEFORE_PAREN;
const RP: Flags = Flags(Flags::RESERVED.0 | Flags::BEFORE_PAREN.0);
const RPT: Flags = Flags(RP.0 | Flags::TYPE.0);
const RW: Flags = Flags(Flags::RESERVED.0 | Flags::WRITES.0);
const RPW: Flags = Flags(Flags::RESERVED.0 | Flags::BEFORE_PAREN.0 | Flags::WRITES.0);
const Y: Flags = Flags::BEFORE_PAREN_MYSQL;

/// Keywords of MySQL 9 and MariaDB 12 that matter to the classification or to the digest.
///
/// An unquoted keyword, reserved or not, is never the name of a stored function: the grammars take
/// an identifier token there.
const KEYWORDS: &[(&str, Word, Flags)] = &[
    ("ACCESSIBLE", Word::Other, R),
    ("ADD", Word::Other, R),
    ("AGAINST", Word::Other, P),
    ("ALL", Word::All, RP),
    ("ALTER", Word::Alter, RW),
    ("ANALYZE", Word::Analyze, R),
    ("AND", Word::Other, RP),
    ("ANY", Word::Other, P),
    ("AS", Word::As, RP),
    ("ASC", Word::Other, R),
    ("ASCII", Word::Other, P),
    ("ASENSITIVE", Word::Other, R),
    ("AT", Word::Other, P),
    ("ATOMIC", Word::Atomic, N),
    ("AUTOCOMMIT", Word::Autocommit, N),
    ("BACKUP", Word::Backup, N),
    ("BEFORE", Word::Other, R),
    ("BEGIN", Word::Begin, N),
    ("BETWEEN", Word::Other, RP),
    ("BIGINT", Word::Other, RPT),
    ("BINARY", Word::Other, RPT),
    ("BINLOG", Word::Binlog, N),
    ("BLOB", Word::Other, RPT),
    ("BOTH", Word::Other, RP),
    ("BY", Word::Other, RP),
    ("CACHE", Word::Cache, N),
    ("CALL", Word::Call, RW),
    ("CASCADE", Word::Other, R),
    ("CASE", Word::Case, RP),
    ("CHAIN", Word::Chain, N),
    ("CHANGE", Word::Change, RW),
    ("CHAR", Word::Other, RPT),
    ("CHARACTER", Word::Character, RPT),
    ("CHARSET", Word::Charset, P),
    ("CHECK", Word::Check, RP),
    ("CHECKSUM", Word::Checksum, N),
    ("CLONE", Word::Clone, N),
    ("COLLATE", Word::Collate, RP),
    ("COLLATION", Word::Collation, P),
    ("COLUMN", Word::Other, R),
    ("COLUMNS", Word::Columns, P),
    ("COMMIT", Word::Commit, N),
    ("CONDITION", Word::Other, R),
    ("CONNECTION", Word::Connection, N),
    ("CONSTRAINT", Word::Other, R),
    ("CONTAINS", Word::Other, P),
    ("CONTINUE", Word::Other, R),
    ("CONVERT", Word::Other, RP),
    ("COUNT", Word::Count, N),
    ("CREATE", Word::Create, RW),
    ("CROSS", Word::Other, R),
    ("CURRENT_DATE", Word::Other, RP),
    ("CURRENT_ROLE", Word::CurrentRole, P),
    ("CURRENT_TIME", Word::Other, RP),
    ("CURRENT_TIMESTAMP", Word::Other, RP),
    ("CURRENT_USER", Word::CurrentUser, RP),
    ("CURSOR", Word::Other, R),
    ("DATA", Word::Data, N),
    ("DATABASE", Word::SchemaDatabase, RP),
    ("DATABASES", Word::Databases, R),
    ("DATE", Word::Other, P),
    ("DATETIME", Word::Other, P),
    ("DAY", Word::Other, P),
    ("DAY_HOUR", Word::Other, R),
    ("DAY_MICROSECOND", Word::Other, R),
    ("DAY_MINUTE", Word::Other, R),
    ("DAY_SECOND", Word::Other, R),
    ("DEALLOCATE", Word::Deallocate, N),
    ("DEC", Word::Other, RPT),
    ("DECIMAL", Word::Other, RPT),
    ("DECLARE", Word::Other, R),
    ("DEFAULT", Word::Default, RP),
    ("DELAYED", Word::InsertOption, R),
    ("DELETE", Word::Delete, RW),
    ("DESC", Word::Desc, R),
    ("DESCRIBE", Word::Desc, R),
    ("DETERMINISTIC", Word::Other, R),
    ("DIAGNOSTICS", Word::Diagnostics, N),
    ("DISTINCT", Word::Other, RP),
    ("DISTINCTROW", Word::Other, RP),
    ("DIV", Word::Other, RP),
    ("DO", Word::Do, P),
    ("DOUBLE", Word::Other, RPT),
    ("DROP", Word::Drop, RW),
    ("DUAL", Word::Other, R),
    ("EACH", Word::Other, R),
    ("ELSE", Word::Other, RP),
    ("ELSEIF", Word::Other, RP),
    ("ENCLOSED", Word::Other, R),
    ("ERRORS", Word::Errors, N),
    ("ESCAPE", Word::Other, P),
    ("ESCAPED", Word::Other, R),
    ("EVENT", Word::Event, N),
    ("EVENTS", Word::Events, N),
    ("EXCEPT", Word::Combine, RP),
    ("EXECUTE", Word::Execute, N),
    ("EXISTS", Word::Other, RP),
    ("EXIT", Word::Other, R),
    ("EXPLAIN", Word::Explain, R),
    ("EXPORT", Word::Export, N),
    ("EXTENDED", Word::Extended, N),
    ("FALSE", Word::Other, R),
    ("FETCH", Word::Other, R),
    ("FIELDS", Word::Fields, N),
    ("FLOAT", Word::Other, RPT),
    ("FLUSH", Word::Flush, N),
    ("FOR", Word::For, R),
    ("FORCE", Word::Other, R),
    ("FOREIGN", Word::Other, R),
    ("FORMAT", Word::Format, P),
    ("FROM", Word::Other, RP),
    ("FULL", Word::Full, N),
    ("FULLTEXT", Word::Other, R),
    ("FUNCTION", Word::Function, N),
    ("GEOMETRYCOLLECTION", Word::Other, P),
    ("GET", Word::Get, N),
    ("GLOBAL", Word::Global, N),
    ("GRANT", Word::Grant, RW),
    ("GROUP", Word::Other, R),
    ("HANDLER", Word::Handler, N),
    ("HARD", Word::Hard, N),
    ("HAVING", Word::Other, RP),
    ("HELP", Word::Help, N),
    ("HIGH_PRIORITY", Word::InsertOption, R),
    ("HOUR", Word::Other, P),
    ("HOUR_MICROSECOND", Word::Other, R),
    ("HOUR_MINUTE", Word::Other, R),
    ("HOUR_SECOND", Word::Other, R),
    ("IF", Word::If, RP),
    ("IGNORE", Word::InsertOption, R),
    ("IMPORT", Word::Import, N),
    ("IN", Word::In, RP),
    ("INDEX", Word::Index, RP),
    ("INDEXES", Word::Indexes, N),
    ("INFILE", Word::Other, R),
    ("INFORMATION_SCHEMA", Word::InformationSchema, N),
    ("INNER", Word::Other, R),
    ("INOUT", Word::Other, R),
    ("INSENSITIVE", Word::Other, R),
    ("INSERT", Word::Insert, RPW),
    ("INSTALL", Word::Install, N),
    ("INSTANCE", Word::Instance, N),
    ("INT", Word::Other, RPT),
    ("INTEGER", Word::Other, RPT),
    ("INTERSECT", Word::Combine, RP),
    ("INTERVAL", Word::Other, RP),
    ("INTO", Word::Into, R),
    ("IS", Word::Other, R),
    ("ISOLATION", Word::Isolation, N),
    ("ITERATE", Word::Other, R),
    ("JOIN", Word::Other, RP),
    ("KEY", Word::Other, RP),
    ("KEYS", Word::Keys, R),
    ("KILL", Word::Kill, RW),
    ("LATERAL", Word::Other, Y),
    ("LEADING", Word::Other, RP),
    ("LEAVE", Word::Other, R),
    ("LEFT", Word::Other, RP),
    ("LEVEL", Word::Level, N),
    ("LIKE", Word::Other, RP),
    ("LIMIT", Word::Limit, R),
    ("LINEAR", Word::Other, R),
    ("LINES", Word::Other, R),
    ("LINESTRING", Word::Other, P),
    ("LOAD", Word::Load, RW),
    ("LOCAL", Word::Local, N),
    ("LOCALTIME", Word::Other, RP),
    ("LOCALTIMESTAMP", Word::Other, RP),
    ("LOCK", Word::Lock, R),
    ("LONG", Word::Other, R),
    ("LONGBLOB", Word::Other, R),
    ("LONGTEXT", Word::Other, R),
    ("LOOP", Word::Loop, R),
    ("LOW_PRIORITY", Word::InsertOption, R),
    ("MATCH", Word::Other, RP),
    ("MEDIUMBLOB", Word::Other, R),
    ("MEDIUMINT", Word::Other, RPT),
    ("MEDIUMTEXT", Word::Other, R),
    ("MICROSECOND", Word::Other, P),
    ("MIDDLEINT", Word::Other, RPT),
    ("MINUTE", Word::Other, P),
    ("MINUTE_MICROSECOND", Word::Other, R),
    ("MINUTE_SECOND", Word::Other, R),
    ("MOD", Word::Other, RP),
    ("MODIFIES", Word::Other, R),
    ("MONTH", Word::Other, P),
    ("MULTILINESTRING", Word::Other, P),
    ("MULTIPOINT", Word::Other, P),
    ("MULTIPOLYGON", Word::Other, P),
    ("MYSQL", Word::SystemSchema, N),
    ("NAMES", Word::Names, N),
    ("NATURAL", Word::Other, R),
    ("NCHAR", Word::Other, P),
    ("NEW", Word::New, N),
    ("NEXT", Word::Next, N),
    ("NO", Word::No, N),
    ("NOT", Word::Not, RP),
    ("NO_WRITE_TO_BINLOG", Word::Local, R),
    ("NULL", Word::Null, R),
    ("NUMERIC", Word::Other, RPT),
    ("OF", Word::Other, P),
    ("OFFSET", Word::Offset, N),
    ("OLD", Word::Old, N),
    ("ON", Word::Other, RP),
    ("ONLY", Word::Only, N),
    ("OPEN", Word::Open, N),
    ("OPTIMIZE", Word::Optimize, RW),
    ("OPTION", Word::Other, R),
    ("OPTIONALLY", Word::Other, R),
    ("OR", Word::Or, RP),
    ("ORDER", Word::Other, R),
    ("OUT", Word::Other, R),
    ("OUTER", Word::Other, R),
    ("OUTFILE", Word::Into, R),
    ("OVER", Word::Other, P),
    ("PACKAGE", Word::Package, N),
    ("PARTITION", Word::Other, RP),
    ("PASSWORD", Word::Password, N),
    ("PERFORMANCE_SCHEMA", Word::SystemSchema, N),
    ("PERSIST", Word::Persist, N),
    ("PERSIST_ONLY", Word::PersistOnly, N),
    ("POINT", Word::Other, P),
    ("POLYGON", Word::Other, P),
    ("PRECISION", Word::Other, R),
    ("PREPARE", Word::Prepare, N),
    ("PREVIOUS", Word::Previous, N),
    ("PRIMARY", Word::Other, R),
    ("PRIVILEGES", Word::Privileges, N),
    ("PROCEDURE", Word::Procedure, R),
    ("PROCESSLIST", Word::Processlist, N),
    ("PROFILE", Word::Profile, N),
    ("PROFILES", Word::Profile, N),
    ("PURGE", Word::Purge, RW),
    ("QUARTER", Word::Other, P),
    ("QUERY", Word::Query, N),
    ("RANGE", Word::Other, R),
    ("READ", Word::Read, R),
    ("READS", Word::Other, R),
    ("REAL", Word::Other, RPT),
    ("RECURSIVE", Word::Recursive, R),
    ("REFERENCES", Word::Other, R),
    ("REGEXP", Word::Other, RP),
    ("RELEASE", Word::Release, R),
    ("RENAME", Word::Rename, RW),
    ("REPAIR", Word::Repair, N),
    ("REPEAT", Word::Repeat, RP),
    ("REPLACE", Word::Replace, RPW),
    ("REQUIRE", Word::Other, R),
    ("RESET", Word::Reset, N),
    ("RESIGNAL", Word::Resignal, R),
    ("RESOURCE", Word::Resource, N),
    ("RESTART", Word::Restart, N),
    ("RESTRICT", Word::Other, R),
    ("RETURN", Word::Other, R),
    ("REVERSE", Word::Other, P),
    ("REVOKE", Word::Revoke, RW),
    ("RIGHT", Word::Other, RP),
    ("RLIKE", Word::Other, RP),
    ("ROLE", Word::Role, N),
    ("ROLLBACK", Word::Rollback, N),
    ("ROW", Word::Other, P),
    ("ROWS", Word::Other, R),
    ("SAVEPOINT", Word::Savepoint, N),
    ("SCHEMA", Word::SchemaDatabase, RP),
    ("SCHEMAS", Word::Databases, R),
    ("SECOND", Word::Other, P),
    ("SECOND_MICROSECOND", Word::Other, R),
    ("SELECT", Word::Select, RP),
    ("SENSITIVE", Word::Other, R),
    ("SEPARATOR", Word::Other, R),
    ("SEQUENCE", Word::Sequence, N),
    ("SESSION", Word::Session, N),
    ("SET", Word::Set, R),
    ("SHARE", Word::Share, N),
    ("SHOW", Word::Show, R),
    ("SHUTDOWN", Word::Shutdown, N),
    ("SIGNAL", Word::Signal, R),
    ("SIGNED", Word::Other, P),
    ("SMALLINT", Word::Other, RPT),
    ("SOFT", Word::Soft, N),
    ("SOME", Word::Other, P),
    ("SPATIAL", Word::Other, R),
    ("SPECIFIC", Word::Other, R),
    ("SQL", Word::Other, R),
    ("SQLEXCEPTION", Word::Other, R),
    ("SQLSTATE", Word::Other, R),
    ("SQLWARNING", Word::Other, R),
    ("SQL_BIG_RESULT", Word::Other, R),
    ("SQL_CALC_FOUND_ROWS", Word::SqlCalcFoundRows, R),
    ("SQL_SMALL_RESULT", Word::Other, R),
    ("SSL", Word::Other, R),
    ("START", Word::Start, N),
    ("STARTING", Word::Other, R),
    ("STATEMENT", Word::Statement, N),
    ("STATUS", Word::Status, N),
    ("STOP", Word::Stop, N),
    ("STORAGE", Word::Storage, N),
    ("STRAIGHT_JOIN", Word::Other, RP),
    ("SYS", Word::SystemSchema, N),
    ("TABLE", Word::Table, R),
    ("TABLES", Word::Tables, N),
    ("TEMPORARY", Word::Temporary, N),
    ("TERMINATED", Word::Other, R),
    ("THEN", Word::Other, RP),
    ("TIME", Word::Other, P),
    ("TIMESTAMP", Word::Other, P),
    ("TIMESTAMPADD", Word::Other, P),
    ("TIMESTAMPDIFF", Word::Other, P),
    ("TINYBLOB", Word::Other, R),
    ("TINYINT", Word::Other, RPT),
    ("TINYTEXT", Word::Other, R),
    ("TO", Word::To, R),
    ("TRAILING", Word::Other, RP),
    ("TRANSACTION", Word::Transaction, N),
    ("TRIGGER", Word::Trigger, R),
    ("TRIGGERS", Word::Triggers, N),
    ("TRUE", Word::Other, R),
    ("TRUNCATE", Word::Truncate, P),
    ("UNDO", Word::Undo, R),
    ("UNICODE", Word::Other, P),
    ("UNINSTALL", Word::Uninstall, N),
    ("UNION", Word::Combine, RP),
    ("UNIQUE", Word::Other, RP),
    ("UNLOCK", Word::Unlock, R),
    ("UNSIGNED", Word::Other, RPT),
    ("UPDATE", Word::Update, RW),
    ("USAGE", Word::Other, R),
    ("USE", Word::Use, R),
    ("USING", Word::Other, RP),
    ("UTC_DATE", Word::Other, RP),
    ("UTC_TIME", Word::Other, RP),
    ("UTC_TIMESTAMP", Word::Other, RP),
    ("VALUE", Word::Value, P),
    ("VALUES", Word::Values, RP),
    ("VARBINARY", Word::Other, RPT),
    ("VARCHAR", Word::Other, RPT),
    ("VARCHARACTER", Word::Other, RPT),
    ("VARYING", Word::Other, R),
    ("VIEW", Word::View, N),
    ("WARNINGS", Word::Warnings, N),
    ("WEEK", Word::Other, P),
    ("WHEN", Word::Other, RP),
    ("WHERE", Word::Other, RP),
    ("WHILE", Word::While, RP),
    ("WITH", Word::With, R),
    ("WORK", Word::Work, N),
    ("WRITE", Word::Write, R),
    ("XA", Word::Xa, N),
    ("XOR", Word::Other, RP),
    ("YEAR", Word::Other, P),
    ("YEAR_MONTH", Word::Other, R),
    ("ZEROFILL", Word::Other, R),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn every_word_is_found_in_any_case_and_place() {
        for (text, _, flags) in KEYWORDS {
            for surrounding in ["", "        "] {
                let sql = format!("{}{}", text.to_ascii_lowercase(), surrounding);
                let key = Key::of(sql.as_bytes(), 0, text.len());
                let entry = find(key, sql.as_bytes(), 0, text.len()).entry().unwrap();
                assert_eq!(entry.text, *text);
                assert_eq!(entry.flags.0 & flags.0, flags.0);
            }
        }
        for (names, _, _) in functions::BUILT_IN {
            for name in *names {
                assert_eq!(find_bytes(name.as_bytes()).unwrap().text, *name);
            }
        }
        for absent in [
            "",
            "S",
            "SELECTX",
            "SELEC",
            "GET_LOCKS",
            "\u{7f}",
            "SQL\u{7f}CALC\u{7f}FOUND\u{7f}ROWS",
        ] {
            assert!(find_bytes(absent.as_bytes()).is_none(), "{absent}");
        }
    }
}
