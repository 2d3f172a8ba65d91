// Node's mysql2.
'use strict';
const crypto = require('crypto');
const fs = require('fs');
const os = require('os');
const path = require('path');
const { Readable } = require('stream');
const mysql = require('mysql2');
const promise = require('mysql2/promise');

const [host, port, socketPath, user, password, schema, flavor] = process.argv.slice(2);
const ROUNDS = 100;

function show(value) {
  if (value === undefined) return 'undefined';
  if (Buffer.isBuffer(value)) return value.length > 1000 ? `md5:${crypto.createHash('md5').update(value).digest('hex')} of ${value.length}` : `hex:${value.toString('hex')}`;
  if (typeof value === 'string') return value.length > 2000 ? `md5:${crypto.createHash('md5').update(value).digest('hex')} of ${value.length}` : JSON.stringify(value);
  if (typeof value === 'bigint') return `${value}n`;
  if (value instanceof Date) return isNaN(value) ? 'invalid date' : `date ${value.toISOString()}`;
  if (Array.isArray(value)) return `[${value.map(show).join(', ')}]`;
  if (value && typeof value === 'object') return `{${Object.keys(value).map((key) => `${key}: ${show(value[key])}`).join(', ')}}`;
  return String(value);
}
const say = (what, ...values) => console.log(what + (values.length ? ': ' + values.map(show).join(' ') : ''));
const heading = (what) => console.log(`== ${what}`);
const failure = (error) => [error.name, error.code, error.errno, error.sqlState, error.sqlMessage || error.message, Boolean(error.fatal)];
async function attempt(what, run) {
  try {
    say(what, await run());
  } catch (error) {
    say(what, 'fails', failure(error));
  }
}
const open = [];
async function connect(options = {}) {
  const db = await promise.createConnection({ host, port: Number(port), user, password, database: schema, charset: 'utf8mb4', timezone: 'Z', ...options });
  db.on('error', () => {});
  open.push(db);
  return db;
}
function statements() {
  const found = [];
  for (const line of fs.readFileSync(process.env.COMPAT_STATEMENTS, 'utf8').split('\n')) {
    if (line === '' || line.startsWith('-- ')) continue;
    const only = /^@(mariadb|mysql) (.*)$/.exec(line);
    if (!only) found.push(line);
    else if (only[1] === flavor) found.push(only[2]);
  }
  return found;
}
async function fresh() {
  const db = await connect();
  for (const [name, charset] of [[schema, 'utf8mb4'], [`${schema}_other`, 'latin1']]) {
    await db.query(`DROP DATABASE IF EXISTS ${name}`);
    await db.query(`CREATE DATABASE ${name} CHARACTER SET ${charset}`);
  }
  await db.end();
}
const column = (f) => (f ? [f.name, f.orgName, f.table, f.orgTable, f.schema, f.catalog, f.characterSet, f.columnLength, f.columnType ?? f.type, f.flags, f.decimals, f.encoding] : f);
const columns = (fields) => (fields ? fields.map((f) => (Array.isArray(f) ? f.map(column) : column(f))) : fields);
async function corpus(prepared, options) {
  const db = await connect(options);
  for (const sql of statements()) {
    say(sql);
    try {
      const [rows, fields] = await (prepared ? db.execute(sql) : db.query(sql));
      say('  columns', columns(fields));
      for (const row of Array.isArray(rows) ? rows : [rows]) say('  row', row);
      if (prepared) db.unprepare(sql);
    } catch (error) {
      say('  fails', failure(error));
    }
  }
  await db.end();
}

// The driver reports some failures twice.
process.on('uncaughtException', (error) => say('uncaught', failure(error)));

async function main() {
  heading('server');
  let db = await connect();
  const raw = db.connection;
  say('server', raw._handshakePacket.serverVersion, raw._handshakePacket.characterSet, raw._handshakePacket.authPluginName);
  const [[{ id }]] = await db.query('SELECT CONNECTION_ID() AS id');
  say('thread', id === db.threadId);
  say('ping', await db.ping());
  for (const [name, prepared, options] of [
    ['text', false, {}],
    ['several statements allowed', false, { multipleStatements: true }],
    ['strings and arrays', false, { dateStrings: true, bigNumberStrings: true, supportBigNumbers: true, rowsAsArray: true, decimalNumbers: true }],
    ['prepared', true, {}],
    ['prepared, strings', true, { dateStrings: true, supportBigNumbers: true, rowsAsArray: true }],
  ]) {
    await fresh();
    heading(`corpus, ${name}`);
    await corpus(prepared, options);
  }
  await fresh();

  heading('parameters');
  db = await connect({ supportBigNumbers: true });
  await db.query('CREATE TABLE p (id INT AUTO_INCREMENT PRIMARY KEY, i BIGINT, u BIGINT UNSIGNED, d DECIMAL(20,5), f DOUBLE, s VARCHAR(100), b LONGBLOB, t DATETIME(6), j JSON, o BOOL)');
  for (const run of ['query', 'execute']) {
    for (const row of [
      ['9223372036854775807', '18446744073709551615', '123456789012345.54321', 3.25, "Grüße 'x' 🎉", Buffer.from([0, 1, 39, 255]), new Date(Date.UTC(2024, 4, 6, 7, 8, 9, 123)), '{"a": 1}', true],
      [-5n, 0, -0.00001, -1e100, '', Buffer.alloc(0), '1000-01-01 00:00:00', '[]', false],
      [null, null, null, null, null, null, null, null, null],
    ]) {
      await attempt(`${run} insert`, async () => (await db[run]('INSERT INTO p (i, u, d, f, s, b, t, j, o) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)', row))[0]);
    }
    for (const from of [1, '2', 99]) await attempt(`${run} select`, async () => (await db[run]('SELECT * FROM p WHERE id >= ? ORDER BY id', [from]))[0]);
    await attempt(`${run} duplicate`, () => db[run]('INSERT INTO p (id) VALUES (?)', [1]));
    await attempt(`${run} no table`, () => db[run]('SELECT * FROM nothing WHERE a = ?', [1]));
    await attempt(`${run} too few`, () => db[run]('SELECT ?, ?', [1]));
    await attempt(`${run} undefined`, () => db[run]('SELECT ?', [undefined]));
  }
  await attempt('bulk', async () => (await db.query('INSERT INTO p (i, s) VALUES ?', [[[1, 'a'], [2, 'b']]]))[0]);
  await attempt('named', async () => (await (await connect({ namedPlaceholders: true })).execute('SELECT :a AS a, :b AS b', { a: 1, b: 'x' }))[0]);
  const statement = await db.prepare('SELECT * FROM p WHERE id = ?');
  say('prepared', (await statement.execute([1]))[1].length);
  await db.query('ALTER TABLE p ADD COLUMN late INT DEFAULT 3');
  await attempt('after ALTER', async () => [(await statement.execute([1]))[1].length, (await statement.execute([2]))[0]]);
  await statement.close();
  await attempt('nested', async () => (await db.query({ sql: 'SELECT a.id, b.id FROM p a JOIN p b ON b.id = a.id ORDER BY 1 LIMIT 1', nestTables: '_' }))[0]);
  await attempt('time limit', () => db.query({ sql: 'SELECT SLEEP(5)', timeout: 300 }));
  db = await connect();

  heading('several statements');
  const m = await connect({ multipleStatements: true });
  for (const sql of ['SELECT 1; SELECT 2, 3', 'SELECT 1; SELECT * FROM nothing; SELECT 3', "INSERT INTO p (s) VALUES ('m'); UPDATE p SET s = 'n' WHERE s = 'm'; SELECT s FROM p WHERE s = 'n'; DELETE FROM p WHERE s = 'n'"]) {
    await attempt(sql, async () => (await m.query(sql))[0]);
  }
  await attempt('not allowed', () => db.query('SELECT 1; SELECT 2'));
  await db.query('CREATE PROCEDURE results (n INT, OUT o INT) BEGIN SELECT n; SET o = n * 2; SELECT id FROM p WHERE id <= n ORDER BY id; UPDATE p SET f = 1; END');
  await attempt('procedure', async () => (await db.query('CALL results(2, @o)'))[0]);
  await attempt('prepared procedure', async () => (await db.execute('CALL results(?, @o)', [2]))[0]);
  await attempt('out', async () => (await db.query('SELECT @o'))[0]);

  heading('streams');
  await attempt('stream', () => new Promise((resolve, reject) => {
    let rows = 0;
    db.connection.query('SELECT a.id FROM p a, p b, p c, p d').stream({ highWaterMark: 5 }).on('data', () => rows++).on('end', () => resolve(rows)).on('error', reject);
  }));
  heading('pipelined');
  const results = await Promise.all([...Array(50).keys()].map((n) => (n % 2 ? db.execute('SELECT ? + 0 AS n', [n]) : db.query(`SELECT ${n} AS n`))));
  say('sum', results.reduce((sum, [[row]]) => sum + Number(row.n), 0));

  heading('files');
  const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'compat')), 'load');
  fs.writeFileSync(file, [...Array(20000).keys()].map((n) => `${n}\t${n}\n`).join(''));
  await db.query('CREATE TABLE tx (id INT PRIMARY KEY, v INT)');
  await attempt('load', async () => (await db.query({ sql: `LOAD DATA LOCAL INFILE '${file}' INTO TABLE tx`, infileStreamFactory: (name) => fs.createReadStream(name) }))[0]);
  await attempt('from memory', async () => (await db.query({ sql: "LOAD DATA LOCAL INFILE 'mine' INTO TABLE tx", infileStreamFactory: () => Readable.from([Buffer.from('90001\t1\n'), Buffer.from('90002\t2\n')]) }))[0]);
  await attempt('no factory', () => db.query("LOAD DATA LOCAL INFILE 'mine' INTO TABLE tx"));
  fs.rmSync(path.dirname(file), { recursive: true });

  heading('transactions');
  db = await connect();
  const other = await connect();
  const count = async (on) => (await on.query('SELECT COUNT(*) AS c FROM tx'))[0][0].c;
  await db.beginTransaction();
  await db.query('DELETE FROM tx WHERE id < 10');
  say('inside', await count(db), await count(other));
  await db.rollback();
  say('rolled back', await count(db));
  await db.beginTransaction();
  await db.execute('UPDATE tx SET v = ? WHERE id = ?', [5, 20]);
  await other.query('SET SESSION innodb_lock_wait_timeout = 1');
  await attempt('lock timeout', () => other.query('UPDATE tx SET v = 6 WHERE id = 20'));
  await db.commit();

  heading('options');
  for (const [name, options] of Object.entries({
    'no found rows': { flags: ['-FOUND_ROWS'] }, 'ignore space': { flags: ['IGNORE_SPACE'] }, latin1: { charset: 'latin1' }, collation: { charset: 'UTF8MB4_BIN' }, compress: { compress: true }, socket: { socketPath, host: undefined },
    attributes: { connectAttributes: { of: 'compat' } }, 'no schema': { database: undefined }, zone: { timezone: '+05:00' },
  })) {
    heading(name);
    await attempt('option', async () => {
      const o = await connect(options);
      await o.query(`UPDATE ${schema}.tx SET v = 1 WHERE id < 5`);
      say('affected', (await o.query(`UPDATE ${schema}.tx SET v = 1 WHERE id < 5`))[0]);
      await attempt('space', async () => (await o.query(`SELECT COUNT (*) FROM ${schema}.tx`))[0]);
      return (await o.query('SELECT DATABASE(), @@character_set_client, @@collation_connection, @@time_zone'))[0];
    });
  }

  heading('change user');
  const c = await connect();
  await c.query('SET @mine = 1');
  await attempt('change', async () => (await c.changeUser({ user, password, database: `${schema}_other` }), (await c.query('SELECT @mine, DATABASE(), @@character_set_client'))[0]));
  await attempt('wrong', () => c.changeUser({ user, password: 'wrong' }));

  heading('pool');
  const pool = promise.createPool({ host, port: Number(port), user, password, database: schema, connectionLimit: 3 });
  say('pool', (await Promise.all([...Array(20).keys()].map((n) => pool.query('SELECT ? AS n', [n])))).reduce((sum, [[row]]) => sum + row.n, 0));
  const leased = await pool.getConnection();
  say('leased', (await leased.query('SELECT DATABASE()'))[0]);
  leased.release();
  await pool.end();

  heading('large');
  const big = Buffer.alloc(17 << 20, Buffer.from([...Array(256).keys()]));
  await db.query('CREATE TABLE big (id INT, b LONGBLOB)');
  // The driver cannot send so much in a prepared statement.
  for (const run of ['query']) {
    await attempt(run, async () => (await db[run]('INSERT INTO big VALUES (?, ?)', [1, big]))[0]);
    await attempt(run, async () => (await db[run]('SELECT b FROM big LIMIT 1'))[0][0].b.equals(big));
  }

  heading('errors');
  await attempt('password', () => connect({ password: 'wrong' }));
  await attempt('account', () => connect({ user: 'nobody' }));
  await attempt('schema', () => connect({ database: 'no_such' }));
  await attempt('empty', () => db.query(''));

  heading('reads');
  let missed = 0;
  for (let round = 0; round < ROUNDS; round++) {
    await db.execute('INSERT INTO tx VALUES (?, ?)', [200000 + round, round]);
    const reader = round % 5 ? other : await connect();
    const [rows] = await reader.execute('SELECT v FROM tx WHERE id = ?', [200000 + round]);
    missed += rows.length === 1 && rows[0].v === round ? 0 : 1;
  }
  say('missed', missed);

  heading('killing');
  const victim = await connect();
  await attempt('kill', async () => (await db.query(`KILL ${victim.threadId}`))[0]);
  const deadline = Date.now() + 20000;
  let gone = false;
  while (!gone && Date.now() < deadline) gone = await victim.query('SELECT 1').then(() => false, () => true);
  say('gone', gone);
  await db.end();
  await attempt('closed', () => db.query('SELECT 1'));
  for (const each of open) each.destroy();
}

main().then(() => process.exit(0), (error) => { console.log('stopped', failure(error), error.stack); process.exit(1); });
