<?php
// One page after another on a persistent connection, as PDO keeps it between requests.
[, $host, $port, $user, $password, $schema] = $argv;

function page(): PDO
{
    global $host, $port, $user, $password, $schema;
    // PDO pings a connection that it has before it hands it out.
    return new PDO("mysql:host=$host;port=$port;dbname=$schema;charset=utf8mb4", $user, $password, [
        PDO::ATTR_PERSISTENT => true,
        PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION,
    ]);
}

function one(PDO $db, string $sql)
{
    return $db->query($sql)->fetchColumn();
}

$deadline = microtime(true) + 60;
do {
    $db = page();
    $session = one($db, 'SELECT CONNECTION_ID()');
    $db->exec("SET time_zone = '+05:00', @mine = 1");
    $db->exec('START TRANSACTION');
    $db->exec('INSERT INTO t VALUES (1)');
    $db = null;
    $db = page();
    $zone = one($db, 'SELECT @@time_zone');
} while ($zone != 'SYSTEM' && microtime(true) < $deadline);

echo implode(', ', [
    one($db, 'SELECT CONNECTION_ID()') == $session ? 'same session' : 'another session',
    $zone,
    one($db, 'SELECT @@character_set_client'),
    one($db, 'SELECT DATABASE()'),
    one($db, 'SELECT @mine') === null ? 'no variable' : 'a variable',
    'rows: ' . one($db, 'SELECT COUNT(*) FROM t'),
]), "\n";
