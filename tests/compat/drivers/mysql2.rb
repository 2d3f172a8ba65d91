# Ruby's mysql2, over MariaDB Connector/C.
require 'digest'
require 'json'
require 'mysql2'
require 'tempfile'

HOST, PORT, SOCKET, USER, PASSWORD, SCHEMA, FLAVOR = ARGV
ROUNDS = 100
$stdout.sync = true

def text(value)
  case value
  when String
    return "md5:#{Digest::MD5.hexdigest(value)} of #{value.bytesize}" if value.bytesize > 2000
    value.dup.force_encoding('UTF-8').valid_encoding? ? "#{value.inspect}/#{value.encoding}" : "hex:#{value.unpack1('H*')}/#{value.encoding}"
  when Array then '[' + value.map { |item| text(item) }.join(', ') + ']'
  when Hash then '{' + value.map { |key, item| "#{key}: #{text(item)}" }.join(', ') + '}'
  when nil, true, false, Symbol then value.inspect
  else "#{value.class} #{value}"
  end
end

def say(what, *values) = puts(what + (values.empty? ? '' : ': ' + values.map { |value| text(value) }.join(' ')))
def heading(what) = puts("== #{what}")

def failure(error)
  error.is_a?(Mysql2::Error) ? [error.class.name, error.error_number, error.sql_state, error.message] : [error.class.name, error.message]
end

def attempt(what)
  say(what, yield)
rescue StandardError => error
  say(what, 'fails', failure(error))
end

def connect(**options)
  Mysql2::Client.new(host: HOST, port: PORT.to_i, username: USER, password: PASSWORD, database: SCHEMA, encoding: 'utf8mb4', **options)
end

def statements
  File.readlines(ENV.fetch('COMPAT_STATEMENTS'), chomp: true, encoding: 'UTF-8').filter_map do |line|
    next if line.empty? || line.start_with?('-- ')
    found = /\A@(mariadb|mysql) (.*)\z/.match(line)
    next if found && found[1] != FLAVOR
    found ? found[2] : line
  end
end

def fresh(db)
  { SCHEMA => 'utf8mb4', "#{SCHEMA}_other" => 'latin1' }.each do |name, charset|
    db.query("DROP DATABASE IF EXISTS #{name}")
    db.query("CREATE DATABASE #{name} CHARACTER SET #{charset}")
  end
  db.select_db(SCHEMA)
end

def shown(db, result, options)
  if result
    types = result.respond_to?(:field_types) ? result.field_types : nil
    say('  fields', result.fields, types)
    result.each(**options) { |row| say('  row', row) }
    say('  count', result.count) unless options[:stream]
  end
  say('  status', db.affected_rows, db.last_id, db.warning_count, db.query_info) rescue say('  status', 'fails')
end

def corpus(db, options)
  statements.each do |sql|
    say(sql)
    begin
      shown(db, db.query(sql, **options), options)
      shown(db, db.store_result, options) while db.next_result
    rescue Mysql2::Error => error
      say('  fails', failure(error))
      db.abandon_results! rescue nil
    end
  end
end

def prepared(db)
  statements.each do |sql|
    say(sql)
    begin
      statement = db.prepare(sql)
      say('  prepared', statement.fields, statement.param_count)
      result = statement.execute
      result&.each(as: :array) { |row| say('  row', row) }
      say('  status', statement.affected_rows, statement.last_id)
      statement.close
    rescue StandardError => error
      say('  fails', failure(error))
    end
  end
end

heading('server')
db = connect
say('server', db.server_info, db.thread_id == db.query('SELECT CONNECTION_ID() AS id').first['id'], db.ping, db.encoding, db.ssl_cipher)
flags = Mysql2::Client::MULTI_STATEMENTS
{ 'hash' => {}, 'array' => { as: :array }, 'symbols' => { symbolize_keys: true }, 'stream' => { stream: true, cache_rows: false }, 'no cast' => { cast: false } }.each do |name, options|
  fresh(connect)
  heading("corpus, #{name}")
  corpus(connect(flags: flags), options)
end
fresh(connect)
heading('corpus, prepared')
prepared(connect)
fresh(connect)

heading('parameters')
db = connect
db.query('CREATE TABLE p (id INT AUTO_INCREMENT PRIMARY KEY, i BIGINT, u BIGINT UNSIGNED, d DECIMAL(20,5), f DOUBLE, s VARCHAR(100), b LONGBLOB, t DATETIME(6), da DATE, ti TIME)')
insert = db.prepare('INSERT INTO p (i, u, d, f, s, b, t, da, ti) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)')
[
  [2**63 - 1, 2**64 - 1, BigDecimal('123456789012345.54321'), 3.25, "Grüße 'x' 🎉", "\0\xff'".b * 5000, Time.utc(2024, 5, 6, 7, 8, 9, 123_456), Date.new(2024, 2, 29), '-10:11:12'],
  [-2**63, 0, -0.00001, -1e100, '', '', Time.utc(1000), Date.new(9999, 12, 31), '00:00:00'],
  [nil] * 9
].each { |row| attempt('insert') { insert.execute(*row); [insert.affected_rows, insert.last_id] } }
select = db.prepare('SELECT * FROM p WHERE id >= ? ORDER BY id')
[1, 2, 99].each { |from| attempt('select') { select.execute(from).to_a } }
attempt('too few') { select.execute }
db = connect
attempt('stream') { db.query('SELECT a.id FROM p a, p b, p c', stream: true, cache_rows: false).map { |row| row['id'] }.sum }
db.query('ALTER TABLE p ADD COLUMN late INT DEFAULT 3')
attempt('after ALTER') { select.execute(1).to_a.first.size }
db = connect
attempt('duplicate') { db.prepare('INSERT INTO p (id) VALUES (?)').execute(1) }
db = connect
db.query('CREATE PROCEDURE results (n INT) BEGIN SELECT n; SELECT id FROM p WHERE id <= n ORDER BY id; UPDATE p SET f = 1; END')
m = connect(flags: flags)
attempt('procedure') { all = [m.query('CALL results(2)').to_a]; all << m.store_result&.to_a while m.next_result; all }
attempt('several') { all = [m.query('SELECT 1 AS a; SELECT * FROM nothing; SELECT 2').to_a]; all << m.store_result&.to_a while m.next_result; all }
m = connect
attempt('not allowed') { m.query('SELECT 1; SELECT 2') }
attempt('switched on') { m.set_server_option(Mysql2::Client::OPTION_MULTI_STATEMENTS_ON); all = [m.query('SELECT 1 AS a; SELECT 2 AS b').to_a]; all << m.store_result.to_a while m.next_result; all }
attempt('switched off') { m.set_server_option(Mysql2::Client::OPTION_MULTI_STATEMENTS_OFF); m.query('SELECT 1; SELECT 2') }
attempt('escaped') { m.escape("a'b\\c\0") }

heading('options')
{ 'no found rows' => { found_rows: false }, 'found rows' => { found_rows: true }, 'init' => { init_command: 'SET @init = 5' }, 'latin1' => { encoding: 'latin1' }, 'timeouts' => { read_timeout: 20, connect_timeout: 20, write_timeout: 20 },
  'compress' => { flags: Mysql2::Client::COMPRESS }, 'socket' => { socket: SOCKET, host: 'localhost' }, 'reconnect' => { reconnect: true }, 'attributes' => { connect_attrs: { program_name: 'compat' } }, 'no local' => { local_infile: false } }.each do |name, options|
  heading(name)
  attempt('option') do
    o = connect(**options)
    o.query('UPDATE p SET f = 2')
    o.query('UPDATE p SET f = 2')
    say('affected', o.affected_rows, o.query_info)
    o.query('SELECT @init, @@character_set_client, @@wait_timeout, DATABASE()', as: :array).to_a
  end
end

heading('asynchronous')
attempt('async') { db.query('SELECT SLEEP(0.05), 7', async: true, as: :array); IO.select([IO.for_fd(db.socket, autoclose: false)]) ; db.async_result.to_a }

db = connect

heading('files')
file = Tempfile.new('compat')
(10_000..30_000).each { |n| file.puts("#{n}\t#{n}") }
file.flush
db.query('CREATE TABLE loaded (id INT PRIMARY KEY, v INT)')
local = connect(local_infile: true)
attempt('load') { local.query("LOAD DATA LOCAL INFILE '#{file.path}' INTO TABLE loaded"); [local.affected_rows, local.query_info] }
attempt('missing') { local.query("LOAD DATA LOCAL INFILE '/no/such/file' INTO TABLE loaded") }

heading('transactions')
other = connect
db.query('BEGIN')
db.query('INSERT INTO loaded VALUES (1, 1)')
say('outside', other.query('SELECT COUNT(*) AS c FROM loaded WHERE id = 1').first)
db.query('COMMIT')
say('outside', other.query('SELECT COUNT(*) AS c FROM loaded WHERE id = 1').first)
other.query('SET SESSION innodb_lock_wait_timeout = 1')
db.query('BEGIN')
db.query('UPDATE loaded SET v = 2 WHERE id = 1')
attempt('lock timeout') { other.query('UPDATE loaded SET v = 3 WHERE id = 1') }
db.query('ROLLBACK')

heading('large')
big = (0..255).to_a.pack('C*') * (17 << 12)
db.query('CREATE TABLE big (b LONGBLOB)')
attempt('insert') { db.prepare('INSERT INTO big VALUES (?)').execute(big); db.affected_rows }
say('same', db.query('SELECT b FROM big').first['b'].b == big)

heading('errors')
attempt('password') { connect(password: 'wrong') }
attempt('account') { connect(username: 'nobody') }
attempt('schema') { connect(database: 'no_such') }
attempt('select_db') { db.select_db('no_such') }
attempt('empty') { db.query('') }
attempt('read timeout') { connect(read_timeout: 1).query('SELECT SLEEP(3)') }

heading('reads')
missed = 0
ROUNDS.times do |round|
  db.query("INSERT INTO loaded VALUES (#{round + 100_000}, #{round})")
  reader = (round % 5).zero? ? connect : other
  missed += 1 if reader.query("SELECT v FROM loaded WHERE id = #{round + 100_000}").first != { 'v' => round }
end
say('missed', missed)

heading('killing')
victim = connect
attempt('kill') { db.query("KILL #{victim.thread_id}") }
deadline = Time.now + 20
begin
  victim.query('SELECT 1') while Time.now < deadline
rescue Mysql2::Error
  say('gone')
end
say('ping', victim.ping)
victim.close
attempt('closed') { victim.query('SELECT 1') }
