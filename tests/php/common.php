<?php
// What the scripts share: where to connect, and printing that is the same everywhere.
declare(strict_types=1);

error_reporting(E_ALL);
mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
[, $host, $port, $socket, $user, $password, $schema] = $argv;
$port = (int) $port;
$compressed = getenv('COMPRESSED') !== false;
$flags = $compressed ? MYSQLI_CLIENT_COMPRESS : 0;

function say(string $what, mixed $value = null): void
{
    echo $what, func_num_args() > 1 ? ': ' . json_encode($value, JSON_PRESERVE_ZERO_FRACTION) : '', "\n";
}

/** Runs something that must fail and prints how. */
function fails(string $what, callable $run): void
{
    try {
        $run();
        say("$what: no error");
    } catch (mysqli_sql_exception $error) {
        say($what, [$error->getCode(), $error->getSqlState(), $error->getMessage()]);
    } catch (PDOException $error) {
        say($what, [$error->errorInfo ?? $error->getCode(), $error->getMessage()]);
    }
}
