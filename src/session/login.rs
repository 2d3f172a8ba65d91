//! From the greeting to a logged-in session; COM_CHANGE_USER does most of it again.

use std::sync::Arc;

use bytes::BytesMut;
use dbproxy_proto::{
    capability::{Capabilities, StatusFlags},
    command::ChangeUser,
    reply::{OkHeader, OkPacket, put_err, put_ok},
};
use tokio::select;

use super::{
    Context, Flow, Registration, Session,
    door::{Admitted, Claim, Door, scramble},
    prepared::Statements,
};
use crate::{
    backend::{Charset, Login, SessionState},
    error::{Error, Origin},
    net::{Peer, Stream},
    sql::Dialect,
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
    registration: Registration,
    context: Arc<Context>,
) -> Result<Session, Error> {
    let mut input = BytesMut::new();
    let capabilities = Capabilities::empty();
    let mut door = Door {
        client: &mut client,
        peer,
        context: &context,
        input: &mut input,
        seq: 0,
        capabilities,
    };
    let handle = registration.handle();
    let admitted = select! {
        biased;
        () = handle.ended() => Err(Error::answer_with(
            Origin::Proxy,
            1053,
            b"08S01",
            "Server shutdown in progress",
        )),
        admitted = door.admit(handle.id()) => admitted,
    };
    let admitted = match admitted {
        Ok(admitted) => admitted,
        // Who was greeted is about to speak: in the middle of that an error would be out of order.
        Err(error) if handle.has_ended() && door.seq > 0 => return Err(error),
        Err(error) => {
            door.refuse(&error).await;
            return Err(error);
        }
    };
    let (seq, capabilities) = (door.seq, door.capabilities);
    let Admitted {
        account,
        login,
        state,
        base,
        scramble,
    } = admitted;
    let wanted = Arc::new(state);
    let mut session = Session {
        account: context.states.of(&account.key),
        context,
        registration,
        client,
        input,
        capabilities,
        login,
        scramble,
        peer,
        initial: Arc::clone(&wanted),
        wanted,
        base,
        dialect: base,
        in_system_schema: false,
        status: initial_status(base),
        held: None,
        pin: None,
        buckets: Vec::new(),
        kept: None,
        last_insert_id: 0,
        taken_previous: false,
        wrote_in_transaction: false,
        prepared: Statements::default(),
    };
    session.set_wanted(SessionState::clone(&session.wanted));
    session.enter(seq).await?;
    Ok(session)
}

impl Session {
    /// Ends a login: the schema is looked for, as a server does, and the client gets its answer.
    async fn enter(&mut self, mut seq: u8) -> Result<(), Error> {
        self.handle().set_user(&self.login.user);
        let mut out = BytesMut::new();
        let schema = self.try_schema().await;
        match &schema {
            Ok(()) => {
                let packet = OkPacket {
                    status: self.status,
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

    async fn try_schema(&mut self) -> Result<(), Error> {
        let Some(schema) = self.wanted.schema() else {
            return Ok(());
        };
        if self.context.schemas.knows(&self.login.user, schema)
            || self.context.topology.borrow().writable().is_none()
        {
            return Ok(());
        }
        let mut conn = self.settled_connection(&self.of_connection()).await?;
        conn.mark_idle(&self.context.buffers);
        if let Some(schema) = self.wanted.schema() {
            self.context.schemas.learn(&self.login.user, schema);
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
        let context = Arc::clone(&self.context);
        let mut door = Door {
            client: &mut self.client,
            peer: self.peer,
            context: &context,
            input: &mut self.input,
            seq: 1,
            capabilities: self.capabilities,
        };
        // The answer in the command is for the greeting's scramble: ask for one to a fresh scramble.
        let entered = async {
            let fresh = scramble()?;
            let claim = Claim {
                user: request.user,
                answer: request.answer(self.scramble),
            };
            let default = door.default_plugin();
            door.authenticate(claim, default, fresh).await
        }
        .await;
        let (account, proof) = match entered {
            Ok(entered) => entered,
            Err(error) => {
                door.refuse(&error).await;
                return Err(error);
            }
        };
        let (seq, flavor) = (door.seq, door.flavor());
        self.login = Login {
            user: String::from_utf8_lossy(request.user).into(),
            account: account.key.clone(),
            proof,
        };
        self.account = context.states.of(&account.key);
        self.buckets.clear();
        let charset = match request.collation {
            Some(id) => Charset::of_login(id, flavor),
            None => self.initial.charset().clone(),
        };
        let multi_statements = self.wanted.multi_statements();
        self.set_wanted(SessionState::new(
            request.database,
            charset,
            multi_statements,
        ));
        self.initial = Arc::clone(&self.wanted);
        self.enter(seq).await?;
        Ok(Flow::Continue)
    }
}
