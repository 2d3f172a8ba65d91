//! A client that runs statements, as text and prepared.

use crate::support::raw::{Raw, Refused, field, is_eof};

/// Runs a statement as text: the first field of its first answer, or the error.
pub(crate) async fn query(conn: &mut Raw, sql: &[u8]) -> Result<Option<String>, Refused> {
    conn.command(0x03, sql).await;
    // A file that is asked for has one line.
    let packets = conn.answer(b"1\n").await;
    refused(&packets)?;
    let columns = usize::from(packets[0][0]);
    let row = packets
        .get(columns + 2)
        .filter(|row| columns > 0 && !is_eof(row));
    let value = row.and_then(|row| field(&mut &row[..]));
    Ok(value.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
}

/// Prepares a statement: its id, or the error. It is never closed.
pub(crate) async fn prepare(conn: &mut Raw, sql: &[u8]) -> Result<[u8; 4], Option<Refused>> {
    conn.command(0x16, sql).await;
    let prepared = conn.packet().await.unwrap();
    refused(std::slice::from_ref(&prepared)).map_err(Some)?;
    for count in [&prepared[7..9], &prepared[5..7]] {
        if count != [0, 0] {
            while !is_eof(&conn.packet().await.unwrap()) {}
        }
    }
    Ok(prepared[1..5].try_into().unwrap())
}

/// Executes a prepared statement.
pub(crate) async fn execute(conn: &mut Raw, id: [u8; 4]) -> Result<Option<String>, Refused> {
    conn.send(&[&[0x17], &id[..], &[0, 1, 0, 0, 0]].concat())
        .await;
    let packets = conn.answer(b"1\n").await;
    refused(&packets).map(|()| None)
}

fn refused(packets: &[Vec<u8>]) -> Result<(), Refused> {
    match packets.last() {
        Some(last) if last[0] == 0xff => Err(Refused::parse(last)),
        _ => Ok(()),
    }
}
