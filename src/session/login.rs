//! From the greeting to a logged-in session; COM_CHANGE_USER does most of it again.

use std::{mem, sync::Arc, time::Duration};

use bytes::BytesMut;
use dbproxy_proto::{
    capability::{Capabilities, StatusFlags},
    command::ChangeUser,
    compress::Side,
    reply::{OkHeader, OkPacket, put_err, put_ok},
};
use tokio::{
    select,
    time::{Instant, timeout},
};

use super::{
    Context, Flow, Handle, Registration, Session, clusters,
    door::{Admitted, Claim, Door, Entered, PROGRAM},
    limits::Seat,
    pins::Pins,
    prepared::Statements,
    relay::News,
    rules::View,
    scopes::SessionScopes,
};
use crate::{
    accounts::AccountKey,
    backend::{Charset, Login, SessionState},
    error::{Error, ErrorKind, Origin},
    net::{Entrance, Peer, Stream, tls::Admission},
    routing::PinReason,
    sql::{Dialect, setting::Settings},
    topology::{Defaults, Flavor},
};

/// The status flags that a session begins with, when statements are read like this.
///
/// Clients escape what they put into statements by the flag: it must be right before the first answer of a server.
pub(super) fn initial_status(base: Dialect) -> StatusFlags {
    let mut status = StatusFlags::AUTOCOMMIT;
    status.set(StatusFlags::NO_BACKSLASH_ESCAPES, base.no_backslash_escapes);
    status.set(StatusFlags::ANSI_QUOTES, base.maria && base.ansi_quotes);
    status
}

/// Greets a client and logs it in. A client that is refused gets the error that a server would give.
pub(super) async fn login(
    mut client: Stream,
    peer: Peer,
    entrance: Entrance,
    mut registration: Registration,
    clusters: Arc<[Arc<Context>]>,
) -> Result<Session, Error> {
    let Some(context) = clusters::greeter(&clusters).cloned() else {
        return Err(Error::setup("there is no cluster".to_owned()));
    };
    let mut input = BytesMut::new();
    let capabilities = Capabilities::empty();
    let mut door = Door {
        client: &mut client,
        peer,
        admission: entrance.admission,
        context: &context,
        clusters: &clusters,
        input: &mut input,
        seq: 0,
        capabilities,
    };
    let handle = Arc::clone(registration.handle());
    let admitted = select! {
        biased;
        () = handle.ended() => Err(ended(&handle, context.limits.logins)),
        admitted = async {
            door.meet(&mut registration).await?;
            door.admit(handle.id()).await
        } => admitted,
    };
    let seated = admitted.and_then(|admitted| {
        registration.logged_in();
        let seat = take_seat(&context, &admitted.account.key)?;
        Ok((admitted, seat))
    });
    let (admitted, seat) = match seated {
        Ok(seated) => seated,
        // Who was greeted is about to speak: in the middle of that an error would be out of order.
        Err(error) if handle.has_ended() && door.seq > 0 => return Err(error),
        Err(error) => {
            door.refuse(&error).await;
            return Err(error);
        }
    };
    let (peer, seq, capabilities) = (door.peer, door.seq, door.capabilities);
    let Admitted {
        account,
        voucher,
        login,
        state,
        base,
        scramble,
        compression,
        program,
        context,
    } = admitted;
    let initial = Arc::new(state);
    let pins = Arc::clone(context.registry.pins());
    let rules = View::new(&context.policy, entrance.listener, program);
    let consistency = rules.policy().consistency;
    let mut session = Session {
        scopes: SessionScopes::begin(&context, &account.key, consistency),
        seat,
        since: Instant::now(),
        clusters: Arc::clone(&clusters),
        rules,
        ruling: None,
        written: None,
        context,
        registration,
        client,
        input,
        capabilities,
        login,
        scramble,
        peer,
        settings: Settings::default(),
        wanted: Arc::clone(&initial),
        initial,
        base,
        dialect: base,
        in_system_schema: false,
        status: initial_status(base),
        held: None,
        pins: Pins::new(pins),
        loss: None,
        recording: None,
        rested: Duration::ZERO,
        reading: None,
        guest: None,
        lanes: Vec::new(),
        buckets: Vec::new(),
        kept: None,
        unknown_hints: 0,
        last_insert_id: 0,
        counts: None,
        taken_previous: false,
        wrote_in_transaction: false,
        prepared: Statements::new(base.maria),
        onlooker: None,
        news: News::None,
        owns_trackers: false,
        max_packet: usize::MAX,
        wait_timeout: Duration::MAX,
    };
    session
        .client
        .set_write_timeout(session.context.limits.write_timeout);
    session.take_defaults();
    session.look_up_rules();
    session.begin(SessionState::clone(&session.initial));
    session.enter(seq, &voucher).await?;
    if let Some(method) = compression {
        let ahead = mem::take(&mut session.input);
        session.client.compress(method, Side::Server, ahead);
    }
    Ok(session)
}

/// Why a login was told to end.
fn ended(handle: &Handle, logins: usize) -> Error {
    if handle.is_crowded_out() {
        let text = format!(
            "Too many connections: others want to log in, and limits.logins = {logins} or limits.connections leaves \
             no room for a login that takes longer"
        );
        return Error::answer_with(Origin::Proxy, 1040, b"08004", text);
    }
    Error::answer_with(Origin::Proxy, 1053, b"08S01", "Server shutdown in progress")
}

/// One of the sessions that an account may have, if there is a limit.
fn take_seat(context: &Context, account: &AccountKey) -> Result<Option<Seat<AccountKey>>, Error> {
    let Some(limit) = context.limits.account_connections else {
        return Ok(None);
    };
    let seat = context.registry.seat(account, limit);
    seat.map(Some).ok_or_else(|| {
        let text = format!(
            "User {} already has more than 'max_user_connections' active connections \
             (in dbproxy: limits.account_connections = {limit})",
            account.user
        );
        Error::answer_with(Origin::Proxy, 1203, b"42000", text)
    })
}

impl Session {
    /// Takes over what the servers give every new session.
    fn take_defaults(&mut self) {
        let greeting = self.context.topology.borrow().greeting.clone();
        let defaults = greeting.map_or_else(Defaults::default, |greeting| greeting.defaults);
        let interactive = self.capabilities.contains(Capabilities::INTERACTIVE);
        self.wait_timeout = if interactive {
            defaults.interactive_timeout
        } else {
            defaults.wait_timeout
        };
        self.max_packet = defaults.max_allowed_packet;
        self.forget_news();
    }

    /// The client is told what the servers tell by default.
    pub(super) fn forget_news(&mut self) {
        self.owns_trackers = false;
        self.news = if self.capabilities.contains(Capabilities::SESSION_TRACK) {
            News::Usual
        } else {
            News::None
        };
    }

    /// Begins with the state of a login. The client's flag for spaces changes the mode, until the next reset on MariaDB
    /// and for good on MySQL; a connection of the pool may have been reset already.
    fn begin(&mut self, state: SessionState) {
        let state = Arc::new(state);
        self.forget_settings();
        self.initial = Arc::clone(&state);
        if !self.capabilities.contains(Capabilities::IGNORE_SPACE) {
            return self.set_wanted(SessionState::clone(&state));
        }
        let greeting = self.context.topology.borrow().greeting.clone();
        let modes = greeting.map_or_else(String::new, |greeting| format!("{},", greeting.sql_mode));
        let modes = format!("'{}IGNORE_SPACE'", modes.trim_start_matches(','));
        self.set_wanted(state.with_variable("sql_mode", &modes));
        if !self.base.maria {
            self.initial = Arc::clone(&self.wanted);
        }
    }

    /// Ends a login: the schema is looked for, as a server does, and the client gets its answer, with `info` if all is
    /// well.
    async fn enter(&mut self, mut seq: u8, info: &[u8]) -> Result<(), Error> {
        self.handle()
            .set_user(&self.login.user, self.peer, self.wanted.schema());
        let mut out = BytesMut::new();
        let schema = if self.login.expired {
            self.restrict().await
        } else {
            self.try_schema().await
        };
        match &schema {
            Ok(()) => {
                let packet = OkPacket {
                    status: self.status,
                    info,
                    ..OkPacket::default()
                };
                put_ok(&mut out, &mut seq, &packet, OkHeader::Ok, self.capabilities);
            }
            Err(error) => put_err(
                &mut out,
                &mut seq,
                &error.answer().packet(),
                self.capabilities,
            ),
        }
        self.reply(&out).await?;
        schema
    }

    /// Ties the session to a connection to the primary, on which the expired password can be changed.
    async fn restrict(&mut self) -> Result<(), Error> {
        self.login.schema = self.wanted.schema().map(Into::into);
        let conn = self.settled_connection(&self.of_connection()).await?;
        self.pin_to(conn, PinReason::ExpiredPassword);
        Ok(())
    }

    async fn try_schema(&mut self) -> Result<(), Error> {
        let Some(schema) = self.wanted.schema() else {
            return Ok(());
        };
        if self.context.schemas.knows(&self.login.account, schema)
            || self.context.topology.borrow().writable().is_none()
        {
            return Ok(());
        }
        let mut conn = self.settled_connection(&self.of_connection()).await?;
        conn.mark_idle(&self.context.buffers);
        if let Some(schema) = self.wanted.schema() {
            self.context.schemas.learn(&self.login.account, schema);
        }
        Ok(())
    }

    /// How statements of a session in this state are read.
    pub(super) fn dialect_of(&self, state: &SessionState) -> Dialect {
        let unquoted = |text: &str| text.trim_matches('\'').to_owned();
        let dialect = match state.variable("sql_mode") {
            Some(mode) => self.base.with_sql_mode(unquoted(mode).as_bytes()),
            None => self.base,
        };
        match (state.variable("character_set_client"), state.charset()) {
            (Some(charset), _) => dialect.with_charset(unquoted(charset).as_bytes()),
            (None, Charset::Names { charset, .. }) => dialect.with_charset(charset.as_bytes()),
            (None, Charset::Server) => dialect,
        }
    }

    /// COM_CHANGE_USER: another login on the same connection, after which nothing of the session before is left.
    pub(super) async fn change_user(&mut self, request: ChangeUser<'_>) -> Result<Flow, Error> {
        self.leave_connections();
        self.status = initial_status(self.base);
        let stays = SessionState::new(
            self.wanted.schema(),
            self.wanted.charset().clone(),
            self.wanted.multi_statements(),
        );
        let context = Arc::clone(&self.context);
        let mut door = Door {
            client: &mut self.client,
            peer: self.peer,
            // It came in already.
            admission: Admission::Any,
            context: &context,
            clusters: &self.clusters,
            input: &mut self.input,
            seq: 1,
            capabilities: self.capabilities,
        };
        let entered = async {
            door.stay_in_cluster(&request)?;
            let claim = Claim {
                user: request.user,
                answer: request.answer(self.scramble),
            };
            let default = door.default_plugin();
            // Some clients answer further commands to the scramble that they were given last, others to the greeting's:
            // it has to stay the same.
            door.authenticate(claim, default, self.scramble).await
        };
        let handle = Arc::clone(self.registration.handle());
        let entered = select! {
            biased;
            () = handle.ended() => None,
            entered = timeout(context.limits.login, entered) => entered.ok(),
        };
        let Some(entered) = entered else {
            // It is the client's turn to speak: an error would be out of order.
            let text = "the end of a change of user";
            return Err(Error::client(ErrorKind::Timeout(text.into())));
        };
        let seated = entered.and_then(|entered| {
            // The same account keeps its place.
            let key = &entered.account.key;
            let seat = (*key != self.login.account)
                .then(|| take_seat(&context, key))
                .transpose()?;
            Ok((entered, seat))
        });
        let (entered, seat) = match seated {
            Ok(seated) => seated,
            Err(error) => {
                door.refuse(&error).await;
                return self.stay(error, stays);
            }
        };
        let (seq, flavor) = (door.seq, door.flavor());
        let Entered {
            account,
            proof,
            voucher,
        } = entered;
        let login = Login::new(request.user, &account, proof, self.peer.ip());
        let consistency = self.rules.policy().consistency;
        let scopes = SessionScopes::begin(&context, &account.key, consistency);
        let before = (
            mem::replace(&mut self.login, login),
            mem::replace(&mut self.scopes, scopes),
            Arc::clone(&self.initial),
        );
        let program = request.attributes.find(PROGRAM).map(Into::into);
        let program = self.rules.rename(program);
        self.forget_logins();
        self.look_up_rules();
        self.take_defaults();
        let charset = match request.collation {
            Some(id) => Charset::of_login(id, flavor),
            None => self.initial.charset().clone(),
        };
        let state = SessionState::new(request.database, charset, stays.multi_statements());
        self.begin(state);
        if let Err(error) = self.enter(seq, &voucher).await {
            (self.login, self.scopes, self.initial) = before;
            self.rules.rename(program);
            self.look_up_rules();
            return self.stay(error, stays);
        }
        if let Some(seat) = seat {
            self.seat = seat;
        }
        Ok(Flow::Continue)
    }

    /// Forgets what was got at servers by the user before.
    fn forget_logins(&mut self) {
        self.buckets.clear();
        self.lanes.clear();
        self.guest = None;
    }

    /// A change of user has failed. MariaDB goes on with the user before, who has lost all but the schema and the
    /// character set; MySQL ends the session.
    fn stay(&mut self, error: Error, state: SessionState) -> Result<Flow, Error> {
        let answered = matches!(error.kind, ErrorKind::Answer(_));
        if !answered || self.context.topology.borrow().flavor() != Flavor::MariaDb {
            return Err(error);
        }
        self.leave_connections();
        self.forget_logins();
        self.take_defaults();
        self.forget_settings();
        self.set_wanted(state);
        self.handle()
            .set_user(&self.login.user, self.peer, self.wanted.schema());
        Ok(Flow::Continue)
    }
}
