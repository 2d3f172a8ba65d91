# Perl's DBD::mysql and DBD::MariaDB: the first argument says which.
use strict;
use warnings;
use utf8;
use DBI;
use JSON::PP;
use File::Temp;
use Time::HiRes qw(time sleep);

my ($driver, $host, $port, $socket, $user, $password, $schema, $flavor) = @ARGV;
my $lower = lc($driver) eq 'mysql' ? 'mysql' : 'mariadb';
my $rounds = 100;
binmode STDOUT, ':utf8';
binmode STDERR, ':utf8';
$| = 1;
my $json = JSON::PP->new->canonical->allow_nonref->allow_blessed->allow_unknown;

sub show {
    my ($value) = @_;
    return 'undef' if !defined $value;
    if (!ref $value) {
        return length($value) > 2000 ? 'long ' . length($value) . ' ' . unpack('%32C*', utf8::is_utf8($value) ? do { my $c = $value; utf8::encode($c); $c } : $value) : $json->encode("$value");
    }
    return '[' . join(', ', map { show($_) } @$value) . ']' if ref $value eq 'ARRAY';
    return '{' . join(', ', map { "$_: " . show($value->{$_}) } sort keys %$value) . '}' if ref $value eq 'HASH';
    return ref $value;
}

sub say_ { my ($what, @values) = @_; print $what, (@values ? ': ' . join(' ', map { show($_) } @values) : ''), "\n"; }
sub heading { print "== $_[0]\n" }

$SIG{__WARN__} = sub { my ($text) = @_; $text =~ s/ at \S+ line \d+.*//s; print "warns: $text\n" };

sub attempt {
    my ($what, $run) = @_;
    my @found = eval { $run->() };
    if ($@) { my $error = $@; $error =~ s/ at \S+ line \d+.*//s; say_($what, 'fails', $DBI::err, $DBI::state, $error); }
    else { say_($what, @found) }
}

sub dsn { my ($extra, $name) = @_; $name //= $schema; return "DBI:$driver:database=$name;host=$host;port=$port;$extra" }
sub open_ {
    my ($extra, %options) = @_;
    my $charset = $lower eq 'mysql' ? "mysql_enable_utf8mb4=1;" : '';
    return DBI->connect(dsn($charset . ($extra // '')), $user, $password, { RaiseError => 1, PrintError => 0, AutoCommit => 1, %options });
}
sub attribute { return "${lower}_$_[0]" }

sub statements {
    open my $file, '<:utf8', $ENV{COMPAT_STATEMENTS} or die;
    my @found;
    while (my $line = <$file>) {
        chomp $line;
        next if $line eq '' || $line =~ /^-- /;
        if ($line =~ /^@(mariadb|mysql) (.*)$/) { next if $1 ne $flavor; $line = $2 }
        push @found, $line;
    }
    return @found;
}

sub results {
    my ($sth) = @_;
    my $more;
    do {
        if ($sth->{NUM_OF_FIELDS}) {
            say_('  columns', $sth->{NAME}, $sth->{TYPE}, $sth->{PRECISION}, $sth->{SCALE}, $sth->{NULLABLE},
                map { $sth->{attribute($_)} } qw(type type_name length max_length table is_blob is_key is_num is_pri_key is_auto_increment));
            while (my $row = $sth->fetchrow_arrayref) { say_('  row', $row) }
        }
        say_('  rows', $sth->rows, $sth->{attribute('insertid')}, $sth->{attribute('warning_count')});
        # The drivers refuse, or crash, when they prepare on the server.
        $more = !$sth->{Database}{attribute('server_prepare')} && $sth->more_results;
    } while ($more);
}

sub corpus {
    my ($db) = @_;
    for my $sql (statements()) {
        say_($sql);
        eval {
            my $sth = $db->prepare($sql);
            $sth->execute;
            results($sth);
            say_('  info', $db->{attribute('info')}, $db->{attribute('insertid')});
            $sth->finish;
        };
        if ($@) { say_('  fails', $db->err, $db->state, $db->errstr) }
    }
}

sub fresh {
    my ($db) = @_;
    for ([$schema, 'utf8mb4'], ["${schema}_other", 'latin1']) {
        $db->do("DROP DATABASE IF EXISTS $_->[0]");
        $db->do("CREATE DATABASE $_->[0] CHARACTER SET $_->[1]");
    }
    $db->do("USE $schema");
}

heading('server');
my $db = open_();
say_('server', map { $db->{attribute($_)} } qw(serverinfo serverversion protoinfo));
say_('host', $db->{attribute('hostinfo')} eq "$host via TCP/IP");
say_('thread', $db->{attribute('thread_id')} == ($db->selectrow_array('SELECT CONNECTION_ID()'))[0]);
say_('stat', $db->{attribute('stat')} =~ /^Uptime: \d+  Threads: \d+  Questions: \d+/ ? 1 : 0);
say_('ping', $db->ping, $db->get_info(18) ne '', $db->get_info(17));

for my $mode ('emulated', 'server', 'unbuffered') {
    my $extra = $mode eq 'server' ? attribute('server_prepare') . '=1;' : $mode eq 'unbuffered' ? attribute('use_result') . '=1;' : '';
    my $c = open_($extra . attribute('multi_statements') . '=1');
    fresh($c);
    heading("corpus, $mode");
    corpus($c);
}
$db = open_();
fresh($db);

for my $server (0, 1) {
    heading("parameters, server_prepare=$server");
    my $p = open_(attribute('server_prepare') . "=$server");
    $p->do('DROP TABLE IF EXISTS p');
    $p->do('CREATE TABLE p (id INT AUTO_INCREMENT PRIMARY KEY, i BIGINT, u BIGINT UNSIGNED, d DECIMAL(20,5), f DOUBLE, s VARCHAR(100), b LONGBLOB, t DATETIME(6))');
    my $insert = $p->prepare('INSERT INTO p (i, u, d, f, s, b, t) VALUES (?, ?, ?, ?, ?, ?, ?)');
    for my $row ([9223372036854775807, '18446744073709551615', '123456789012345.54321', 3.25, "Grüße 'x' \\ 🎉", "\0\1'\xff" x 5000, '2024-05-06 07:08:09.123456'], ['-9223372036854775808', 0, '-0.00001', -1e100, '', '', '1000-01-01 00:00:00'], [(undef) x 7]) {
        my $n = 0;
        for my $value (@$row) { $n++; $insert->bind_param($n, $value, $n == 6 ? DBI::SQL_BLOB() : $n <= 2 ? DBI::SQL_BIGINT() : $n == 4 ? DBI::SQL_DOUBLE() : DBI::SQL_VARCHAR()) }
        attempt('insert', sub { $insert->execute, $insert->{attribute('insertid')}, $p->last_insert_id(undef, undef, undef, undef) });
    }
    my $select = $p->prepare('SELECT * FROM p WHERE id >= ? ORDER BY id');
    for my $from (1, 3, 99) { $select->execute($from); results($select); }
    attempt('hash', sub { $p->selectall_hashref('SELECT id, i, s FROM p', 'id') });
    attempt('array', sub { $p->execute_array_result });
    attempt('many', sub { my $many = $p->prepare('INSERT INTO p (i, s) VALUES (?, ?)'); $many->execute_array({}, [1 .. 20], [map { "n$_" } 1 .. 20]) });
    attempt('limit', sub { my $l = $p->prepare('SELECT id FROM p ORDER BY id LIMIT ?'); $l->bind_param(1, 2, DBI::SQL_INTEGER()); $l->execute; $l->fetchall_arrayref });
    attempt('too few', sub { $p->prepare('SELECT ?, ?')->execute(1) });
    attempt('duplicate', sub { $p->do('INSERT INTO p (id) VALUES (?)', undef, 1) });
    attempt('bad', sub { $p->do('SELECT * FROM nothing WHERE a = ?', undef, 1) });
    $p = open_(attribute('server_prepare') . "=$server");
    attempt('after ALTER', sub {
        my $star = $p->prepare('SELECT * FROM p WHERE id = 1');
        $star->execute; my $before = scalar @{ $star->fetchrow_arrayref }; $star->finish;
        $p->do('ALTER TABLE p ADD COLUMN late INT DEFAULT 3');
        $star->execute; ($before, scalar @{ $star->fetchrow_arrayref });
    });
    $p->do('DROP PROCEDURE IF EXISTS results');
    $p->do('CREATE PROCEDURE results (n INT) BEGIN SELECT n; SELECT id FROM p WHERE id <= n ORDER BY id; UPDATE p SET f = 1; END');
    attempt('procedure', sub { my $call = $p->prepare('CALL results(?)'); $call->execute(2); results($call) });
    $p->do("SET SESSION sql_mode = 'NO_BACKSLASH_ESCAPES'");
    say_('quoted', $p->quote("a'b\\c"), $p->quote_identifier('a`b'));
}

heading('transactions');
$db = open_();
$db->do('CREATE TABLE tx (id INT PRIMARY KEY, v INT)');
my $other = open_();
my $count = sub { ($_[0]->selectrow_array('SELECT COUNT(*) FROM tx'))[0] };
$db->begin_work;
$db->do('INSERT INTO tx VALUES (1, 1)');
say_('inside', $count->($db), $count->($other), $db->{AutoCommit});
$db->commit;
say_('after', $count->($other), $db->{AutoCommit});
$db->{AutoCommit} = 0;
$db->do('INSERT INTO tx VALUES (2, 2)');
$db->rollback;
say_('rolled back', $count->($db));
$db->do('INSERT INTO tx VALUES (3, 3)');
$db->{AutoCommit} = 1;
say_('committed by AutoCommit', $count->($other));
$other->do('SET SESSION innodb_lock_wait_timeout = 1');
$db->begin_work;
$db->do('UPDATE tx SET v = 9 WHERE id = 1');
attempt('lock timeout', sub { $other->do('UPDATE tx SET v = 8 WHERE id = 1') });
$db->rollback;
my $gone = open_('', AutoCommit => 0);
$gone->do('INSERT INTO tx VALUES (4, 4)');
$gone->disconnect;
say_('rolled back by the end', $count->($db));

heading('options');
for my $extra ('client_found_rows=0', 'client_found_rows=1', 'compression=1', 'connect_timeout=20', 'read_timeout=20', 'init_command=SET @init=5', 'multi_statements=1', 'auto_reconnect=1', 'bind_type_guessing=1') {
    heading($extra);
    attempt('option', sub {
        my $o = open_($lower . "_$extra");
        $o->do('UPDATE tx SET v = 5');
        say_('affected', $o->do('UPDATE tx SET v = 5'), $o->{attribute('info')});
        attempt('two', sub { $o->do('SELECT 1; SELECT 2') });
        $o->selectall_arrayref('SELECT @init, id FROM tx ORDER BY id');
    });
}

heading('catalogue');
say_('tables', [sort $db->tables(undef, $schema, '%', 'TABLE')]);
for my $what ([column_info => undef, $schema, 'p', '%'], [primary_key_info => undef, $schema, 'p'], [table_info => undef, $schema, '%', 'TABLE'], [foreign_key_info => undef, $schema, 'p', undef, undef, undef]) {
    my ($method, @arguments) = @$what;
    attempt($method, sub { my $sth = $db->$method(@arguments); $sth ? $sth->fetchall_arrayref : 'none' });
}

heading('files');
my $file = File::Temp->new;
print $file "$_\t$_\n" for 10000 .. 30000;
$file->flush;
my $local = open_(attribute('local_infile') . '=1');
attempt('load', sub { $local->do("LOAD DATA LOCAL INFILE '$file' INTO TABLE tx"), $local->{attribute('info')} });
attempt('missing', sub { $local->do("LOAD DATA LOCAL INFILE '/no/such/file' INTO TABLE tx") });
attempt('not allowed', sub { open_(attribute('local_infile') . '=0')->do("LOAD DATA LOCAL INFILE '$file' INTO TABLE tx") });

heading('large');
my $big = pack('C*', 0 .. 255) x (17 << 12);
$db->do('CREATE TABLE big (b LONGBLOB)');
my $put = $db->prepare('INSERT INTO big VALUES (?)');
$put->bind_param(1, $big, DBI::SQL_BLOB());
attempt('insert', sub { $put->execute });
$db->{LongReadLen} = 1 << 26;
say_('same', (($db->selectrow_array('SELECT b FROM big'))[0] // '') eq $big ? 1 : 0);

heading('errors');
attempt('password', sub { DBI->connect(dsn(''), $user, 'wrong', { RaiseError => 1, PrintError => 0 }) });
attempt('account', sub { DBI->connect(dsn(''), 'nobody', '', { RaiseError => 1, PrintError => 0 }) });
attempt('schema', sub { DBI->connect(dsn('', 'no_such'), $user, $password, { RaiseError => 1, PrintError => 0 }) });
attempt('socket', sub { DBI->connect("DBI:$driver:database=$schema;${lower}_socket=$socket", $user, $password, { RaiseError => 1, PrintError => 0 })->selectrow_array('SELECT DATABASE()') });
attempt('empty', sub { $db->do('') });

heading('asynchronous');
attempt('async', sub {
    my $sth = $db->prepare('SELECT SLEEP(0.1), 5', { attribute('async') => 1 });
    $sth->execute;
    sleep 0.02 until $sth->can('mysql_async_ready') ? $sth->mysql_async_ready : $sth->mariadb_async_ready;
    $sth->fetchrow_arrayref;
});

heading('reads');
$db = open_();
my $missed = 0;
for my $round (1 .. $rounds) {
    $db->do("INSERT INTO tx VALUES (100000 + $round, $round)");
    my $reader = $round % 5 ? $other : open_();
    $missed++ if ($reader->selectrow_array("SELECT v FROM tx WHERE id = 100000 + $round"))[0] // 0 != $round;
}
say_('missed', $missed);

heading('killing');
my $victim = open_();
my $id = $victim->{attribute('thread_id')};
attempt('kill', sub { $db->do("KILL $id") });
my $deadline = time + 20;
1 while time < $deadline && eval { $victim->do('SELECT 1'); 1 };
say_('gone', time < $deadline ? 1 : 0);
my $again = open_(attribute('auto_reconnect') . '=1');
$id = $again->{attribute('thread_id')};
$db->do("KILL $id");
$deadline = time + 20;
my $now = $id;
while (time < $deadline && $now == $id) { eval { ($now) = $again->selectrow_array('SELECT CONNECTION_ID()') } }
attempt('reconnected', sub { $again->selectrow_array('SELECT 1, DATABASE()') });
