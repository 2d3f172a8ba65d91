//! What a session expects of a connection, and the statements that get a connection there.

use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use dbproxy_proto::{
    capability::Capabilities,
    command::{code, put_command, put_query},
};
use mysql_common::collations::{Collation, CollationId};
use xxhash_rust::xxh3::Xxh3Default;

use super::user_variables::UserVariables;
use crate::{
    sql::{Constant, variables},
    topology::Flavor,
};

/// The carried part of a session's state: what every connection that runs a
/// statement of the session must have.
///
/// A value: a change makes a new one. Sessions hold it as the state that is
/// wanted, connections as the state that they are in; the same `Arc` on both
/// sides is the usual case and costs one comparison.
#[derive(Clone, Debug)]
pub struct SessionState {
    schema: Option<Box<[u8]>>,
    charset: Charset,
    variables: BTreeMap<Box<str>, Box<str>>,
    user_variables: UserVariables,
    /// A value may have been taken only because `sql_mode` was not strict then.
    lenient: bool,
    multi_statements: bool,
    /// `wait_timeout`, if the session set it.
    wait_timeout: Option<Duration>,
    fingerprint: u64,
    /// The same without the user variables.
    settings: u64,
}

/// From here on numbers below 256 are MySQL's alone: gb18030_chinese_ci.
const FIRST_OF_MYSQL_ONLY: u16 = 248;

/// utf8mb4_0900_ai_ci, the default of utf8mb4 in MySQL since 8.0.
const UTF8MB4_0900: u16 = 255;

/// The four variables that `SET NAMES` sets together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Charset {
    /// Whatever the server has by default: the state after a reset.
    Server,
    /// As after `SET NAMES charset [COLLATE collation]`.
    Names {
        /// Character set.
        charset: Box<str>,
        /// Collation, if not the character set's default.
        collation: Option<Box<str>>,
    },
}

impl Charset {
    /// The collation that new connections are opened with: utf8mb4_general_ci,
    /// which every server since MySQL 5.5.3 knows.
    pub const HANDSHAKE_ID: u16 = 45;

    /// The character set and collation that a login with this collation id sets.
    pub fn of_login(id: u16, flavor: Flavor) -> Self {
        let collation = Collation::resolve(CollationId::from(id));
        // A server keeps to its own default when it does not know the number.
        let unknown = collation.id() == CollationId::UNKNOWN_COLLATION_ID
            || (flavor == Flavor::MariaDb && id >= FIRST_OF_MYSQL_ONLY);
        if unknown {
            return Self::Server;
        }
        // MariaDB from 11.2 on takes the number of a character set's oldest default for "the default", which since
        // 11.5 is a collation that no login can name; SET NAMES without COLLATE means the same to it, and to older
        // versions the old default.
        let is_default = id == Self::HANDSHAKE_ID || (collation.is_default() && id != UTF8MB4_0900);
        Self::Names {
            charset: collation.charset().into(),
            collation: (flavor == Flavor::MySql || !is_default)
                .then(|| collation.collation().into()),
        }
    }

    /// The id that greets clients of servers with this default collation.
    ///
    /// The packet has room for one byte. MariaDB sends the lower byte of a larger number, which names another
    /// character set or none; this is the old default of the same character set.
    pub fn greeting_id(collation: u16) -> u8 {
        // https://github.com/MariaDB/server/blob/main/include/my_sys.h, strings/ctype-uca1400.h: above 1023 the
        // numbers of the NO PAD collations are those of their PAD SPACE twins plus 1024.
        match collation {
            ..=255 => collation as u8,
            576..=607 | 2048..=2303 => 33,
            640..=671 | 2560..=2815 => 35,
            672..=703 | 2816..=3071 => 54,
            736..=767 | 3072..=3327 => 60,
            1024..=2047 => Self::greeting_id(collation - 1024),
            _ => Self::HANDSHAKE_ID as u8,
        }
    }

    /// The name of the character set that this collation belongs to.
    pub fn name_of(collation: u16) -> &'static str {
        let id = u16::from(Self::greeting_id(collation));
        Collation::resolve(CollationId::from(id)).charset
    }
}

/// Variables that [`Charset`] sets as well: after a change of it they have to be set again.
fn is_charset_variable(name: &str) -> bool {
    matches!(
        name,
        "character_set_client"
            | "character_set_connection"
            | "character_set_results"
            | "collation_connection"
    )
}

/// Variables that decide how the text of a statement is read.
fn decides_reading(name: &str) -> bool {
    name == "sql_mode" || is_charset_variable(name)
}

impl PartialEq for SessionState {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
            && self.schema == other.schema
            && self.charset == other.charset
            && self.multi_statements == other.multi_statements
            && self.variables == other.variables
            && self.user_variables == other.user_variables
    }
}

impl Eq for SessionState {}

impl SessionState {
    /// The state right after a login with a schema and a collation.
    pub fn new(schema: Option<&[u8]>, charset: Charset, multi_statements: bool) -> Self {
        let schema = schema.filter(|name| !name.is_empty()).map(Box::from);
        Self {
            schema,
            charset,
            variables: BTreeMap::new(),
            user_variables: UserVariables::default(),
            lenient: false,
            multi_statements,
            wait_timeout: None,
            fingerprint: 0,
            settings: 0,
        }
        .fingerprinted()
    }

    fn fingerprinted(mut self) -> Self {
        let mut hasher = Xxh3Default::new();
        (
            &self.schema,
            &self.charset,
            &self.variables,
            self.multi_statements,
        )
            .hash(&mut hasher);
        self.settings = hasher.finish();
        self.fingerprint = self.settings;
        if self.user_variables.len() > 0 {
            self.user_variables.hash(&mut hasher);
            self.fingerprint = hasher.finish();
        }
        self.wait_timeout = self.variable("wait_timeout").and_then(seconds);
        self
    }

    /// The schema in use.
    pub fn schema(&self) -> Option<&[u8]> {
        self.schema.as_deref()
    }

    /// Whether several statements may come in one packet.
    pub fn multi_statements(&self) -> bool {
        self.multi_statements
    }

    /// Equal states have equal fingerprints.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// The same for states that differ in nothing but user variables.
    pub fn settings_fingerprint(&self) -> u64 {
        self.settings
    }

    /// How many user variables have a known value.
    pub fn user_variables(&self) -> usize {
        self.user_variables.len()
    }

    /// Whether the user variable of this name, in lower case, has a known value.
    pub fn has_user_variable(&self, name: &[u8]) -> bool {
        self.user_variables.contains(name)
    }

    /// Whether a connection in this state can be taken to another one without a reset.
    pub(super) fn can_become(&self, wanted: &Self) -> bool {
        self.user_variables.can_become(&wanted.user_variables)
    }

    /// The same with a user variable of this name, in lower case, set to a constant; None if there are too many.
    pub fn with_user_variable(&self, name: &[u8], constant: &Constant) -> Option<Self> {
        let mut changed = self.clone();
        let taken = changed.user_variables.set(name, constant);
        taken.then(|| changed.fingerprinted())
    }

    /// The same, of which a value may have been taken for another one that is possible.
    pub fn taken_leniently(&self) -> Self {
        Self {
            lenient: true,
            ..self.clone()
        }
    }

    /// The same without user variables.
    pub fn without_user_variables(&self) -> Self {
        Self {
            user_variables: UserVariables::default(),
            ..self.clone()
        }
        .fingerprinted()
    }

    /// Whether text means the same in both states.
    pub fn reads_text_as(&self, other: &Self) -> bool {
        fn deciding(state: &SessionState) -> impl Iterator<Item = (&str, &str)> {
            let all = state.variables.iter();
            all.map(|(name, value)| (name.as_ref(), value.as_ref()))
                .filter(|(name, _)| decides_reading(name))
        }
        self.charset == other.charset && deciding(self).eq(deciding(other))
    }

    /// The character set as a login or `SET NAMES` set it.
    pub fn charset(&self) -> &Charset {
        &self.charset
    }

    /// The SQL text of a carried variable's value, if the session set it.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(AsRef::as_ref)
    }

    /// How long a client, or a connection, in this state may be idle; None: as the server has it by default.
    pub fn wait_timeout(&self) -> Option<Duration> {
        self.wait_timeout
    }

    /// Another name than `name` under which the variable `canonical` was set.
    pub fn spelling_of(&self, canonical: &str, name: &str) -> Option<Box<str>> {
        let same = |set: &str| {
            set != name
                && variables::find(set.as_bytes()).is_some_and(|known| known.canonical == canonical)
        };
        self.variables.keys().find(|set| same(set)).cloned()
    }

    /// The same with another schema.
    pub fn with_schema(&self, schema: Option<&[u8]>) -> Self {
        Self {
            schema: schema.filter(|name| !name.is_empty()).map(Box::from),
            ..self.clone()
        }
        .fingerprinted()
    }

    /// The same with multi-statements switched on or off.
    pub fn with_multi_statements(&self, on: bool) -> Self {
        Self {
            multi_statements: on,
            ..self.clone()
        }
        .fingerprinted()
    }

    /// The same with another character set; single character set variables are overridden by it.
    pub fn with_charset(&self, charset: Charset) -> Self {
        let mut changed = Self {
            charset,
            ..self.clone()
        };
        changed
            .variables
            .retain(|name, _| !is_charset_variable(name));
        changed.fingerprinted()
    }

    /// The same with a variable set to the value that `sql` writes; `DEFAULT` forgets it.
    pub fn with_variable(&self, name: &str, sql: &str) -> Self {
        let mut changed = self.clone();
        // DEFAULT is the server's default, for the character set too, which is not what a login set.
        if sql.eq_ignore_ascii_case("default") && !is_charset_variable(name) {
            changed.variables.remove(name);
        } else {
            match name {
                // Each sets the other one along with itself.
                "collation_connection" => changed.variables.remove("character_set_connection"),
                "character_set_connection" => changed.variables.remove("collation_connection"),
                _ => None,
            };
            changed.variables.insert(name.into(), sql.into());
        }
        changed.fingerprinted()
    }

    /// The same, with everything that decides how the text of a statement is read as in `other`.
    pub fn reading_as(&self, other: &Self) -> Self {
        let mut changed = Self {
            schema: other.schema.clone().or_else(|| self.schema.clone()),
            charset: other.charset.clone(),
            ..self.clone()
        };
        changed.variables.retain(|name, _| !decides_reading(name));
        let read = other
            .variables
            .iter()
            .filter(|(name, _)| decides_reading(name));
        changed
            .variables
            .extend(read.map(|(name, value)| (name.clone(), value.clone())));
        changed.fingerprinted()
    }

    /// The state of a connection after COM_RESET_CONNECTION: the multi-statement option stays,
    /// everything else is the server's default, and the schema is whatever it was.
    pub fn reset(&self) -> Self {
        Self {
            // No name of a schema: it is always set anew, and nobody without one gets the connection.
            schema: Some(Box::from(&b"\0"[..])),
            charset: Charset::Server,
            variables: BTreeMap::new(),
            user_variables: UserVariables::default(),
            ..self.clone()
        }
        .fingerprinted()
    }
}

/// Appends the commands that take a connection from `actual` to `wanted`, and
/// returns how many answers they will have.
///
/// `extra` are further assignments for the SET statement, each beginning with a
/// comma and a blank. A connection with a schema cannot be taken to a state
/// without one: the pool keeps the two kinds apart. Nor can one with a user
/// variable that is not wanted: it has to be reset first.
pub(super) fn put_difference(
    out: &mut BytesMut,
    actual: &Arc<SessionState>,
    wanted: &Arc<SessionState>,
    extra: &str,
    capabilities: Capabilities,
) -> u32 {
    if extra.is_empty() && (Arc::ptr_eq(actual, wanted) || actual == wanted) {
        return 0;
    }
    let mut answers = 0;
    if actual.multi_statements != wanted.multi_statements {
        let option: u16 = if wanted.multi_statements { 0 } else { 1 };
        put_command(out, code::SET_OPTION, &option.to_le_bytes());
        answers += 1;
    }
    let set = set_statement(actual, wanted, extra);
    if !set.is_empty() {
        if wanted.lenient {
            put_query(out, b"SET SESSION sql_mode=''", capabilities);
            answers += 1;
        }
        put_query(out, set.as_bytes(), capabilities);
        answers += 1;
    }
    // By itself: constants mean what they meant only in the state that was set before.
    if let Some(set) = wanted
        .user_variables
        .statement_after(&actual.user_variables)
    {
        put_query(out, &set, capabilities);
        answers += 1;
    }
    if actual.schema != wanted.schema
        && let Some(schema) = &wanted.schema
    {
        put_command(out, code::INIT_DB, schema);
        answers += 1;
    }
    answers
}

/// A number of seconds as servers take it for a time to wait.
fn seconds(sql: &str) -> Option<Duration> {
    let seconds: u64 = sql.parse().ok()?;
    Some(Duration::from_secs(seconds.clamp(1, 31_536_000)))
}

/// A name of a character set or collation; DEFAULT is none.
fn quoted(name: &str) -> String {
    if name.eq_ignore_ascii_case("default") {
        name.to_owned()
    } else {
        format!("'{name}'")
    }
}

/// What a variable is set to that the session has not set.
fn default_of(name: &str) -> String {
    match name {
        // To MySQL, DEFAULT is off for these: it turns their bits round twice.
        "foreign_key_checks" | "unique_checks" => format!("@@global.{name}"),
        _ => "DEFAULT".to_owned(),
    }
}

fn set_statement(actual: &SessionState, wanted: &SessionState, extra: &str) -> String {
    let mut assignments = String::new();
    let differs = actual.charset != wanted.charset
        || actual
            .variables
            .iter()
            .any(|(name, _)| is_charset_variable(name) && !wanted.variables.contains_key(name));
    match &wanted.charset {
        Charset::Names { charset, collation } if differs => {
            assignments.push_str(", NAMES ");
            assignments.push_str(&quoted(charset));
            if let Some(collation) = collation {
                assignments.push_str(" COLLATE ");
                assignments.push_str(&quoted(collation));
            }
        }
        // Not NAMES DEFAULT, which forgets the server's default collation.
        Charset::Server if differs => assignments.push_str(
            ", SESSION character_set_client=DEFAULT, SESSION character_set_results=DEFAULT, \
             SESSION collation_connection=DEFAULT",
        ),
        Charset::Names { .. } | Charset::Server => {}
    }
    let mut assign = |name: &str, value: &str| {
        assignments.push_str(", SESSION ");
        assignments.push_str(name);
        assignments.push('=');
        assignments.push_str(value);
    };
    for name in actual.variables.keys() {
        if !wanted.variables.contains_key(name) && !is_charset_variable(name) {
            assign(name, &default_of(name));
        }
    }
    for (name, value) in &wanted.variables {
        let again = differs && is_charset_variable(name);
        if again || actual.variables.get(name) != Some(value) {
            assign(name, value);
        }
    }
    if wanted.lenient && !(assignments.is_empty() && extra.is_empty()) {
        assignments.push_str(", SESSION sql_mode=");
        assignments.push_str(wanted.variable("sql_mode").unwrap_or("DEFAULT"));
    }
    assignments.push_str(extra);
    match assignments.strip_prefix(", ") {
        Some(list) => format!("SET {list}"),
        None => assignments,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latin1() -> Charset {
        Charset::of_login(8, Flavor::MySql)
    }

    fn commands(actual: &SessionState, wanted: &SessionState) -> Vec<String> {
        let mut out = BytesMut::new();
        let answers = put_difference(
            &mut out,
            &Arc::new(actual.clone()),
            &Arc::new(wanted.clone()),
            "",
            Capabilities::empty(),
        );
        let mut commands = Vec::new();
        while !out.is_empty() {
            let len = usize::from(out[0]) | usize::from(out[1]) << 8;
            let packet = out.split_to(4 + len);
            commands.push(format!(
                "{:#x} {}",
                packet[4],
                String::from_utf8_lossy(&packet[5..])
            ));
        }
        assert_eq!(answers as usize, commands.len());
        commands
    }

    #[test]
    fn what_was_taken_leniently_is_set_leniently() {
        let actual = SessionState::new(Some(b"shop"), latin1(), false);
        let wanted = actual
            .with_variable("sql_mode", "'ANSI'")
            .with_variable("div_precision_increment", "99999")
            .taken_leniently();
        assert_eq!(
            commands(&actual, &wanted),
            [
                "0x3 SET SESSION sql_mode=''",
                "0x3 SET SESSION div_precision_increment=99999, SESSION sql_mode='ANSI', SESSION sql_mode='ANSI'",
            ]
        );
        assert_eq!(commands(&wanted, &wanted), Vec::<String>::new());
    }

    #[test]
    fn equal_states_need_nothing() {
        let state = SessionState::new(Some(b"shop"), latin1(), false)
            .with_variable("time_zone", "'+00:00'");
        let same = SessionState::new(Some(b"shop"), latin1(), false)
            .with_variable("time_zone", "'+00:00'");
        assert_eq!(commands(&state, &same), Vec::<String>::new());
        assert_eq!(state.fingerprint(), same.fingerprint());
    }

    #[test]
    fn all_variables_go_in_one_statement() {
        let actual = SessionState::new(None, Charset::of_login(45, Flavor::MySql), false)
            .with_variable("sql_mode", "'ANSI'")
            .with_variable("autocommit", "0");
        let wanted =
            SessionState::new(Some(b"shop"), latin1(), true).with_variable("autocommit", "1");
        assert_eq!(
            commands(&actual, &wanted),
            [
                "0x1b \0\0",
                "0x3 SET NAMES 'latin1' COLLATE 'latin1_swedish_ci', SESSION sql_mode=DEFAULT, SESSION autocommit=1",
                "0x2 shop"
            ]
        );
    }

    #[test]
    fn a_character_set_variable_is_set_again_after_names() {
        let before = SessionState::new(None, latin1(), false);
        let single = before.with_variable("character_set_results", "NULL");
        assert_eq!(
            commands(&before, &single),
            ["0x3 SET SESSION character_set_results=NULL"]
        );
        assert_eq!(
            commands(&single, &before),
            ["0x3 SET NAMES 'latin1' COLLATE 'latin1_swedish_ci'"]
        );
        let reset = single.reset();
        assert_eq!(
            commands(&reset, &single),
            [
                "0x3 SET NAMES 'latin1' COLLATE 'latin1_swedish_ci', SESSION character_set_results=NULL"
            ]
        );
        assert_eq!(single.with_charset(latin1()), before);
    }

    #[test]
    fn the_servers_character_set_can_be_reached() {
        let before = SessionState::new(None, latin1(), false);
        let default = "SESSION character_set_client=DEFAULT, SESSION character_set_results=DEFAULT, \
                       SESSION collation_connection=DEFAULT";
        let wanted = SessionState::new(None, Charset::Server, false);
        assert_eq!(commands(&before, &wanted), [format!("0x3 SET {default}")]);
        let single = wanted.with_variable("character_set_results", "NULL");
        assert_eq!(
            commands(&before, &single),
            [format!(
                "0x3 SET {default}, SESSION character_set_results=NULL"
            )]
        );
        assert_eq!(
            commands(&wanted, &single),
            ["0x3 SET SESSION character_set_results=NULL"]
        );
    }

    #[test]
    fn a_login_sets_what_the_server_would_set() {
        let names = |charset: &str, collation: Option<&str>| Charset::Names {
            charset: charset.into(),
            collation: collation.map(Into::into),
        };
        use Flavor::{MariaDb, MySql};
        for (id, flavor, expected) in [
            (45, MySql, names("utf8mb4", Some("utf8mb4_general_ci"))),
            (45, MariaDb, names("utf8mb4", None)),
            (46, MariaDb, names("utf8mb4", Some("utf8mb4_bin"))),
            (8, MariaDb, names("latin1", None)),
            (255, MySql, names("utf8mb4", Some("utf8mb4_0900_ai_ci"))),
            (255, MariaDb, Charset::Server),
            (248, MySql, names("gb18030", Some("gb18030_chinese_ci"))),
            (248, MariaDb, Charset::Server),
            (0, MySql, Charset::Server),
            (2304, MariaDb, Charset::Server),
        ] {
            assert_eq!(Charset::of_login(id, flavor), expected, "{id} {flavor:?}");
        }
    }

    #[test]
    fn the_greetings_byte_names_the_character_set() {
        for (collation, byte, charset) in [
            (8, 8, "latin1"),
            (255, 255, "utf8mb4"),
            (309, 45, "utf8mb4"),
            (608, 45, "utf8mb4"),
            (2304, 45, "utf8mb4"),
            (2503, 45, "utf8mb4"),
            (2048, 33, "utf8mb3"),
            (1600, 33, "utf8mb3"),
            (1032, 8, "latin1"),
            (1071, 47, "latin1"),
            (2560, 35, "ucs2"),
        ] {
            assert_eq!(Charset::greeting_id(collation), byte, "{collation}");
            assert_eq!(Charset::name_of(collation), charset, "{collation}");
        }
    }

    #[test]
    fn a_default_is_forgotten() {
        let before = SessionState::new(None, latin1(), false);
        assert_eq!(
            before
                .with_variable("sql_mode", "''")
                .with_variable("sql_mode", "default"),
            before
        );
    }
}
