<?php
// What the scripts share: where to connect, and printing that is the same everywhere.
declare(strict_types=1);

error_reporting(E_ALL);
[, $host, $port, $socket, $user, $password, $schema, $flavor] = $argv;
$port = (int) $port;
const ROUNDS = 100;

/** A value as text: JSON, with bytes that are no text in hex. */
function text(mixed $value): string
{
    $wrapped = [$value];
    array_walk_recursive($wrapped, function (mixed &$leaf): void {
        if (is_string($leaf) && (!mb_check($leaf) || strlen($leaf) > 2000)) {
            $leaf = strlen($leaf) > 2000 ? 'md5:' . md5($leaf) . ' of ' . strlen($leaf) : 'hex:' . bin2hex($leaf);
        }
    });
    return json_encode($wrapped[0], JSON_PRESERVE_ZERO_FRACTION | JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_PARTIAL_OUTPUT_ON_ERROR);
}

function mb_check(string $bytes): bool
{
    return preg_match('//u', $bytes) === 1;
}

function say(string $what, mixed ...$values): void
{
    echo $what, $values === [] ? '' : ': ' . implode(' ', array_map(text(...), $values)), "\n";
}

function heading(string $what): void
{
    echo "== $what\n";
}

/** The statements of the corpus that this server is for. */
function statements(string $flavor): array
{
    $statements = [];
    foreach (file(getenv('COMPAT_STATEMENTS'), FILE_IGNORE_NEW_LINES) as $line) {
        if ($line === '' || str_starts_with($line, '-- ')) {
            continue;
        }
        if (preg_match('/^@(\w+) (.*)$/', $line, $found) && in_array($found[1], ['mariadb', 'mysql'], true)) {
            if ($found[1] !== $flavor) {
                continue;
            }
            $line = $found[2];
        }
        $statements[] = $line;
    }
    return $statements;
}

/** Asks again and again until something holds. */
function until(callable $condition): bool
{
    $deadline = microtime(true) + 20;
    do {
        if ($condition()) {
            return true;
        }
    } while (microtime(true) < $deadline);
    return false;
}

/** How something fails, or what it gives. */
function attempt(string $what, callable $run): void
{
    try {
        say($what, $run());
    } catch (mysqli_sql_exception $error) {
        say($what, 'fails', $error->getCode(), $error->getSqlState(), $error->getMessage());
    } catch (PDOException $error) {
        say($what, 'fails', $error->errorInfo ?? $error->getCode(), $error->getMessage());
    } catch (Error $error) {
        say($what, 'fails', $error::class, $error->getMessage());
    }
}

// PHP's own warnings are part of what an application sees.
set_error_handler(function (int $level, string $message): bool {
    say('php says', preg_replace('/PHP_\w+|pid \d+/', '', $message));
    return true;
});
