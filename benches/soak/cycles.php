<?php
// One client: cycles.php fresh|mixed mysqli|pdo PORT CLIENT FIRST CYCLES. In each cycle it writes the next number, from FIRST
// on, into its own rows and reads it back: `fresh` each on a connection of its own, as two requests of an application do, `mixed` five
// times on one connection. It prints what it saw as JSON.
declare(strict_types=1);

const HOST = '127.0.0.1';
const ACCOUNT = 'app';
const READS = 5;
const READ = 'SELECT c.n, w.name FROM counters c JOIN where_am_i w WHERE c.client = ?';
const READ_LOG = 'SELECT MAX(l.n), MIN(w.name) FROM log l JOIN where_am_i w WHERE l.client = ?';
// ? stands for the number first, then for the client.
const UPDATE = 'UPDATE counters SET n = ? WHERE client = ?';
const INSERT = 'INSERT INTO log (n, client) VALUES (?, ?)';

interface Connection
{
    public function text(string $sql, int ...$values): ?array;
    public function prepared(string $sql, int ...$values): ?array;
    public function transaction(callable $statements): void;
}

/** A statement with the values written into it. */
function written(string $sql, array $values): string
{
    return vsprintf(str_replace('?', '%d', $sql), $values);
}

final class OfMysqli implements Connection
{
    private mysqli $link;

    public function __construct(int $port)
    {
        $this->link = new mysqli(HOST, ACCOUNT, ACCOUNT, 'soak', $port);
    }

    public function text(string $sql, int ...$values): ?array
    {
        $result = $this->link->query(written($sql, $values));
        return $result instanceof mysqli_result ? $result->fetch_row() : null;
    }

    public function prepared(string $sql, int ...$values): ?array
    {
        $statement = $this->link->prepare($sql);
        $statement->execute($values);
        $result = $statement->get_result();
        return $result ? $result->fetch_row() : null;
    }

    public function transaction(callable $statements): void
    {
        $this->link->begin_transaction();
        $statements();
        $this->link->commit();
    }
}

final class OfPdo implements Connection
{
    private PDO $link;

    public function __construct(int $port)
    {
        $this->link = new PDO('mysql:host=' . HOST . ";port=$port;dbname=soak", ACCOUNT, ACCOUNT);
        $this->link->setAttribute(PDO::ATTR_EMULATE_PREPARES, false);
    }

    public function text(string $sql, int ...$values): ?array
    {
        $result = $this->link->query(written($sql, $values));
        return $result->columnCount() > 0 ? $result->fetchAll(PDO::FETCH_NUM)[0] : null;
    }

    public function prepared(string $sql, int ...$values): ?array
    {
        $statement = $this->link->prepare($sql);
        $statement->execute($values);
        return $statement->columnCount() > 0 ? $statement->fetchAll(PDO::FETCH_NUM)[0] : null;
    }

    public function transaction(callable $statements): void
    {
        $this->link->beginTransaction();
        $statements();
        $this->link->commit();
    }
}

/** Writes the number in one of the ways in which applications do; which one, the number says. */
function write(Connection $connection, int $client, int $number): void
{
    match ($number % 4) {
        0 => $connection->text(UPDATE, $number, $client),
        1 => $connection->prepared(UPDATE, $number, $client),
        2 => $connection->transaction(function () use ($connection, $client, $number) {
            $connection->text(INSERT, $number, $client);
            $connection->text(UPDATE, $number, $client);
        }),
        3 => $connection->transaction(function () use ($connection, $client, $number) {
            $connection->prepared(UPDATE, $number, $client);
            $connection->prepared(INSERT, $number, $client);
        }),
    };
}

/** What was read and the server that answered. */
function read(Connection $connection, int $client, int $number): array
{
    $sql = $number % 4 >= 2 && $number % 8 >= 4 ? READ_LOG : READ;
    return ($number >> 3) % 2 ? $connection->prepared($sql, $client) : $connection->text($sql, $client);
}

[, $shape, $driver] = $argv;
[$port, $client, $first, $cycles] = array_map(intval(...), array_slice($argv, 3));
mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
$connect = fn(): Connection => $driver === 'pdo' ? new OfPdo($port) : new OfMysqli($port);
$seen = ['cycles' => 0, 'reads' => [], 'stale' => [], 'examples' => [], 'errors' => []];
$kept = $shape === 'mixed' ? $connect() : null;
for ($number = $first; $number < $first + $cycles; $number++) {
    try {
        write($kept ?? $connect(), $client, $number);
        for ($i = $kept ? READS : 1; $i > 0; $i--) {
            [$read, $server] = read($kept ?? $connect(), $client, $number);
            $seen['reads'][$server] = ($seen['reads'][$server] ?? 0) + 1;
            if ((int) $read !== $number) {
                $seen['stale'][$server] = ($seen['stale'][$server] ?? 0) + 1;
                $seen['examples'][] = "client $client ($driver): wrote $number, read $read on $server";
            }
        }
        $seen['cycles']++;
    } catch (Throwable $error) {
        $seen['errors'][] = "client $client ($driver), number $number: {$error->getMessage()}";
        if (count($seen['errors']) >= 20) {
            break;
        }
    }
}
$seen['examples'] = array_slice($seen['examples'], 0, 3);
echo json_encode($seen, JSON_FORCE_OBJECT | JSON_THROW_ON_ERROR), "\n";
