// MariaDB's Connector/J, which speaks to both servers.

import java.io.ByteArrayInputStream;
import java.io.InputStream;
import java.io.PrintStream;
import java.io.Reader;
import java.io.StringReader;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.sql.*;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Calendar;
import java.util.Comparator;
import java.util.HexFormat;
import java.util.List;
import java.util.Set;
import java.util.TimeZone;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

import org.mariadb.jdbc.MariaDbConnection;
import org.mariadb.jdbc.MariaDbPoolDataSource;
import org.mariadb.jdbc.MariaDbStatement;

class ConnectorJ {
    static final int ROUNDS = 100;
    // Whoever waits for a lock for nothing does not do so for long.
    static final String LIMIT = "sessionVariables=innodb_lock_wait_timeout=15";
    static String host, port, user, password, schema, flavor;
    static boolean mariadb;

    interface Action {
        Object run() throws Exception;
    }

    interface Check {
        boolean holds() throws Exception;
    }

    static String show(Object value) throws Exception {
        if (value == null) return "null";
        if (value instanceof byte[] bytes) return bytes.length > 1000 ? "md5:" + md5(bytes) + " of " + bytes.length : "bytes " + HexFormat.of().formatHex(bytes);
        if (value instanceof String text) return text.length() > 2000 ? "md5:" + md5(text.getBytes(StandardCharsets.UTF_8)) + " of " + text.length() : '"' + text + '"';
        if (value instanceof Clob clob) return "clob " + show(clob.getSubString(1, (int) clob.length()));
        if (value instanceof Blob blob) return "blob " + show(blob.getBytes(1, (int) blob.length()));
        if (value instanceof InputStream stream) return "stream " + show(stream.readAllBytes());
        if (value instanceof Reader reader) {
            var text = new StringBuilder();
            for (int c; (c = reader.read()) >= 0; ) text.append((char) c);
            return "reader " + show(text.toString());
        }
        if (value instanceof Throwable error) return failure(error);
        if (value instanceof ResultSet) return "a result";
        if (value instanceof int[] all) return Arrays.toString(all);
        if (value instanceof long[] all) return Arrays.toString(all);
        if (value instanceof Object[] all) value = Arrays.asList(all);
        if (value instanceof List<?> all) {
            var parts = new ArrayList<String>();
            for (var item : all) parts.add(show(item));
            return parts.toString();
        }
        return value.getClass().getSimpleName() + " " + value;
    }

    static String md5(byte[] bytes) throws Exception {
        return HexFormat.of().formatHex(MessageDigest.getInstance("MD5").digest(bytes));
    }

    static void say(String what, Object... values) throws Exception {
        var line = new StringBuilder(what + (values.length > 0 ? ":" : ""));
        for (var value : values) line.append(' ').append(show(value));
        System.out.println(line);
    }

    static void heading(String what) {
        System.out.println("== " + what);
    }

    // The number of the connection stands in the messages.
    static String plain(String message) {
        return message == null ? null : message.replaceAll("\\(conn=-?\\d+\\)", "(conn=N)").replaceAll("connection id \\d+|Connection \\d+|connection \\d+", "connection N").replace("\n", " | ");
    }

    static String failure(Throwable error) {
        if (error instanceof InvocationTargetException outer) error = outer.getCause();
        var text = error.getClass().getSimpleName() + " " + plain(error.getMessage());
        if (error instanceof SQLException sql) {
            text += " state " + sql.getSQLState() + " code " + sql.getErrorCode();
            if (sql instanceof BatchUpdateException batch) text += " counts " + Arrays.toString(batch.getUpdateCounts());
            if (sql.getNextException() != null) text += " next {" + failure(sql.getNextException()) + "}";
        }
        return text;
    }

    static void attempt(String what, Action action) throws Exception {
        try {
            say(what, action.run());
        } catch (Exception error) {
            say(what + " fails", error);
        }
    }

    static boolean until(Check check) throws Exception {
        long end = System.nanoTime() + 20_000_000_000L;
        while (System.nanoTime() < end) {
            if (check.holds()) return true;
            Thread.sleep(20);
        }
        return false;
    }

    static String url(String name, String options) {
        // MySQL's accounts need the server's key where there is no TLS.
        return "jdbc:mariadb://" + host + ":" + port + "/" + name + "?allowPublicKeyRetrieval=true&" + options;
    }

    static Connection connect(String options) throws SQLException {
        return DriverManager.getConnection(url(schema, options), user, password);
    }

    static Connection connect() throws SQLException {
        return connect("");
    }

    static List<String> statements() throws Exception {
        var found = new ArrayList<String>();
        for (var line : Files.readAllLines(Path.of(System.getenv("COMPAT_STATEMENTS")))) {
            if (line.isEmpty() || line.startsWith("-- ")) continue;
            if (line.startsWith("@mariadb ") || line.startsWith("@mysql ")) {
                if (!line.startsWith("@" + flavor + " ")) continue;
                line = line.substring(flavor.length() + 2);
            }
            found.add(line);
        }
        return found;
    }

    static void fresh() throws Exception {
        try (var db = connect(); var statement = db.createStatement()) {
            for (var each : new String[][] {{schema, "utf8mb4"}, {schema + "_other", "latin1"}}) {
                statement.execute("DROP DATABASE IF EXISTS " + each[0]);
                statement.execute("CREATE DATABASE " + each[0] + " CHARACTER SET " + each[1]);
            }
        }
    }

    static void columns(ResultSetMetaData meta) throws Exception {
        for (int n = 1; n <= meta.getColumnCount(); n++) {
            say("  column", meta.getColumnLabel(n), meta.getColumnName(n), meta.getTableName(n), meta.getCatalogName(n), meta.getSchemaName(n), meta.getColumnType(n), meta.getColumnTypeName(n), meta.getColumnClassName(n), meta.getPrecision(n), meta.getScale(n), meta.getColumnDisplaySize(n), meta.isNullable(n), meta.isSigned(n), meta.isAutoIncrement(n), meta.isCaseSensitive(n), meta.isReadOnly(n), meta.isSearchable(n));
        }
    }

    static Object cell(ResultSet rows, int column) {
        try {
            return rows.getObject(column);
        } catch (Exception error) {
            return error;
        }
    }

    static List<Object> row(ResultSet rows) throws SQLException {
        var found = new ArrayList<>();
        for (int n = 1; n <= rows.getMetaData().getColumnCount(); n++) found.add(cell(rows, n));
        return found;
    }

    static void rows(ResultSet rows) throws Exception {
        columns(rows.getMetaData());
        while (rows.next()) say("  row", row(rows));
    }

    /** All results of a statement that was executed. */
    static void results(Statement statement, boolean isRows) throws Exception {
        while (true) {
            if (isRows) {
                try (var found = statement.getResultSet()) {
                    rows(found);
                }
            } else {
                long count = statement.getLargeUpdateCount();
                if (count == -1) break;
                say("  done", count);
            }
            isRows = statement.getMoreResults();
        }
    }

    static void keys(Statement statement) throws Exception {
        try (var keys = statement.getGeneratedKeys()) {
            var found = new ArrayList<>();
            while (keys.next()) found.add(keys.getLong(1));
            if (!found.isEmpty()) say("  keys", found);
        }
    }

    static void warnings(Statement statement) throws Exception {
        for (var warning = statement.getWarnings(); warning != null; warning = warning.getNextWarning()) {
            say("  warning", plain(warning.getMessage()), warning.getSQLState(), warning.getErrorCode());
        }
    }

    static void query(Connection db, String sql, Object... arguments) throws Exception {
        say(sql);
        try (var statement = db.prepareStatement(sql)) {
            for (int n = 0; n < arguments.length; n++) statement.setObject(n + 1, arguments[n]);
            results(statement, statement.execute());
            warnings(statement);
        } catch (SQLException error) {
            say("  fails", error);
        }
    }

    static void run(Connection db, String... all) throws Exception {
        for (var sql : all) {
            try (var statement = db.createStatement()) {
                results(statement, statement.execute(sql));
            } catch (SQLException error) {
                say(sql + " fails", error);
            }
        }
    }

    static Object first(Connection db, String sql) throws SQLException {
        try (var statement = db.createStatement(); var rows = statement.executeQuery(sql)) {
            return rows.next() ? row(rows) : null;
        }
    }

    static long number(Connection db, String sql) throws SQLException {
        try (var statement = db.createStatement(); var rows = statement.executeQuery(sql)) {
            rows.next();
            return rows.getLong(1);
        }
    }

    static void corpus(String options, boolean prepared, int fetch, boolean withWarnings) throws Exception {
        heading("corpus " + options + (prepared ? " prepared" : "") + (fetch > 0 ? " streamed" : "") + (withWarnings ? " with warnings" : ""));
        try (var db = connect(options)) {
            for (var sql : statements()) {
                say(sql);
                try (var statement = prepared ? db.prepareStatement(sql, Statement.RETURN_GENERATED_KEYS) : db.createStatement()) {
                    statement.setFetchSize(fetch);
                    boolean isRows = prepared ? ((PreparedStatement) statement).execute() : statement.execute(sql, Statement.RETURN_GENERATED_KEYS);
                    results(statement, isRows);
                    keys(statement);
                    if (withWarnings) warnings(statement);
                } catch (Exception error) {
                    say("  fails", error);
                }
            }
        }
        fresh();
    }

    static void parameters(String options) throws Exception {
        heading("parameters " + options);
        var db = connect(options);
        run(db, "DROP TABLE IF EXISTS p", "CREATE TABLE p (id INT AUTO_INCREMENT PRIMARY KEY, i BIGINT, u BIGINT UNSIGNED, d DECIMAL(30,5), f DOUBLE, r FLOAT, s VARCHAR(100), c LONGTEXT, b LONGBLOB, t DATETIME(6), z TIMESTAMP(3) NULL, da DATE, ti TIME(6), y YEAR, o BOOL, bi BIT(8), b1 BIT(1), js JSON, e ENUM('x','y'))");
        var insert = db.prepareStatement("INSERT INTO p (i, u, d, f, r, s, c, b, t, z, da, ti, y, o, bi, b1, js, e) VALUES (" + "?, ".repeat(17) + "?)", Statement.RETURN_GENERATED_KEYS);
        var about = insert.getParameterMetaData();
        say("parameters", about.getParameterCount());
        for (int n = 1; n <= 3; n++) {
            int at = n;
            for (var method : sorted(ParameterMetaData.class)) {
                if (method.getParameterCount() == 1 && method.getParameterTypes()[0] == int.class) attempt("parameter " + n + " " + method.getName(), () -> method.invoke(about, at));
            }
        }
        say("without a result", insert.getMetaData() == null ? null : insert.getMetaData().getColumnCount());
        Object[][] all = {
            {Long.MAX_VALUE, new BigInteger("18446744073709551615"), new BigDecimal("123456789012345.54321"), 3.25, 1.5f, "Grüße 'x' \\ 🎉 ?", new StringReader("long text ".repeat(500)), new ByteArrayInputStream(new byte[] {0, 1, 39, 92, -1}), Timestamp.valueOf("2024-05-06 07:08:09.123456"), Timestamp.valueOf("2001-02-03 04:05:06.789"), Date.valueOf("2024-02-29"), Time.valueOf("12:34:56"), 2024, true, new byte[] {-127}, true, "{\"a\": [1, \"ü\"]}", "x"},
            {Long.MIN_VALUE, 0, new BigDecimal("-0.00001"), -1e100, -0.25f, "", "", new byte[0], LocalDateTime.of(1000, 1, 1, 0, 0), Timestamp.valueOf("1970-01-02 00:00:00"), LocalDate.of(9999, 12, 31), LocalTime.of(23, 59, 59, 999_999_000), 1901, false, new byte[] {0}, false, "[]", "y"},
            {(byte) -1, (short) 7, 5, 6L, 7, 'c', "text", "bytes".getBytes(), "2024-01-02 03:04:05", "2024-01-02 03:04:05", "2024-01-02", "-20:00:00", "2000", 1, 5, 1, "null", 1},
            new Object[18],
        };
        for (var row : all) {
            attempt("insert", () -> {
                for (int n = 0; n < row.length; n++) {
                    if (row[n] instanceof Reader reader) insert.setCharacterStream(n + 1, reader);
                    else if (row[n] instanceof InputStream stream) insert.setBinaryStream(n + 1, stream);
                    else if (row[n] == null) insert.setNull(n + 1, Types.NULL);
                    else insert.setObject(n + 1, row[n]);
                }
                return insert.executeUpdate();
            });
            keys(insert);
        }
        attempt("setters", () -> {
            insert.clearParameters();
            insert.setLong(1, 5);
            insert.setBigDecimal(2, new BigDecimal("12"));
            insert.setObject(3, "12.5", Types.DECIMAL);
            insert.setFloat(4, 0.5f);
            insert.setDouble(5, 0.5);
            insert.setNString(6, "n");
            insert.setClob(7, new StringReader("clob"));
            var blob = db.createBlob();
            blob.setBytes(1, new byte[] {1, 2, 3});
            insert.setBlob(8, blob);
            insert.setTimestamp(9, Timestamp.valueOf("2024-05-06 07:08:09"), Calendar.getInstance(TimeZone.getTimeZone("GMT+5")));
            insert.setTimestamp(10, null);
            insert.setDate(11, Date.valueOf("2024-03-01"));
            insert.setTime(12, Time.valueOf("01:02:03"));
            insert.setShort(13, (short) 1999);
            insert.setBoolean(14, true);
            insert.setInt(15, 255);
            insert.setByte(16, (byte) 1);
            insert.setAsciiStream(17, new ByteArrayInputStream("{}".getBytes()));
            insert.setNull(18, Types.VARCHAR);
            return insert.executeUpdate();
        });
        attempt("one missing", () -> {
            insert.clearParameters();
            insert.setInt(1, 1);
            return insert.executeUpdate();
        });
        insert.close();
        for (var from : new Object[] {1, "2", 99L, new BigDecimal("3")}) query(db, "SELECT * FROM p WHERE id >= ? ORDER BY id", from);
        try (var statement = db.prepareStatement("SELECT * FROM p ORDER BY id")) {
            say("before execution", statement.getMetaData() == null ? null : statement.getMetaData().getColumnCount());
            try (var rows = statement.executeQuery()) {
                var meta = rows.getMetaData();
                while (rows.next()) {
                    for (int n = 1; n <= meta.getColumnCount(); n++) getters(rows, n, meta.getColumnName(n));
                }
            }
        }
        query(db, "SELECT ? + 0, ?, CAST(? AS CHAR)", 1, "a", null);
        query(db, "SELECT id FROM p ORDER BY id LIMIT ?, ?", 1, 2);
        query(db, "SELECT id FROM p WHERE id IN (?, ?) OR s LIKE ? ORDER BY id", 1, 3, "%?%");
        query(db, "INSERT INTO p (id) VALUES (?)", 1);
        query(db, "SELECT * FROM nothing WHERE a = ?", 1);
        query(db, "SELECT /* ? */ '?', ? -- ?", 1);
        query(db, "SELECT {fn CONCAT('a', ?)}, {d '2024-01-01'}, {ts '2024-01-01 10:00:00'}", "b");
        query(db, "INSERT INTO p (u) VALUES (?)", -1);
        query(db, "INSERT IGNORE INTO p (s, u) VALUES (REPEAT('x', ?), ?)", 200, -1);
        query(db, "UPDATE p SET s = ? WHERE id = ?", "changed", 1);
        query(db, "UPDATE p SET s = ? WHERE id = ?", "changed", 1);
        try (var star = db.prepareStatement("SELECT * FROM p WHERE id = ?")) {
            for (int round = 0; round < 2; round++) {
                star.setInt(1, 1);
                try (var rows = star.executeQuery()) {
                    say("star", rows.getMetaData().getColumnCount(), rows.next());
                }
                run(db, "ALTER TABLE p ADD COLUMN late" + round + " INT DEFAULT 3");
            }
        }
        try (var reused = db.prepareStatement("SELECT ?, ? + 0")) {
            for (var each : new Object[][] {{1, 1}, {"b", "2"}, {2.5, 3.5}, {null, null}, {new byte[] {65}, 5L}}) {
                reused.setObject(1, each[0]);
                reused.setObject(2, each[1]);
                attempt("reused", () -> {
                    try (var rows = reused.executeQuery()) {
                        rows.next();
                        return row(rows);
                    }
                });
            }
        }
        batches(db);
        db.close();
    }

    static void getters(ResultSet rows, int column, String name) throws Exception {
        for (var getter : new String[] {"getString", "getBytes", "getInt", "getLong", "getBigDecimal", "getDouble", "getBoolean", "getTimestamp", "getDate", "getTime", "getBlob", "getClob", "getBinaryStream", "getCharacterStream"}) {
            attempt("  " + name + " " + getter, () -> ResultSet.class.getMethod(getter, int.class).invoke(rows, column));
        }
        for (var type : new Class<?>[] {LocalDateTime.class, LocalDate.class, LocalTime.class, BigInteger.class, String.class, byte[].class}) {
            attempt("  " + name + " as " + type.getSimpleName(), () -> rows.getObject(column, type));
        }
        say("  " + name + " was null", rows.wasNull());
    }

    static void batches(Connection db) throws Exception {
        run(db, "DROP TABLE IF EXISTS batched", "CREATE TABLE batched (id INT AUTO_INCREMENT PRIMARY KEY, a INT UNIQUE, s VARCHAR(20), b BLOB, d DATETIME NULL)");
        try (var many = db.prepareStatement("INSERT INTO batched (a, s, b, d) VALUES (?, ?, ?, ?)", Statement.RETURN_GENERATED_KEYS)) {
            for (int n = 0; n < 300; n++) {
                many.setInt(1, n);
                many.setString(2, n % 7 == 0 ? null : "s'" + n);
                many.setBytes(3, n % 5 == 0 ? new byte[0] : new byte[] {(byte) n, 0});
                many.setTimestamp(4, n % 3 == 0 ? null : Timestamp.valueOf("2024-01-01 00:00:00"));
                many.addBatch();
            }
            attempt("batch", many::executeBatch);
            attempt("keys", () -> {
                keys(many);
                return null;
            });
            attempt("empty batch", many::executeBatch);
            for (var a : new Object[] {1000, 5, 1001}) {
                many.setObject(1, a);
                many.setString(2, "dup");
                many.setBytes(3, null);
                many.setTimestamp(4, null);
                many.addBatch();
            }
            attempt("batch with a duplicate", many::executeLargeBatch);
            many.clearBatch();
        }
        say("batched", first(db, "SELECT COUNT(*), SUM(a), COUNT(s), COUNT(d), SUM(LENGTH(b)) FROM batched"));
        try (var update = db.prepareStatement("UPDATE batched SET s = ? WHERE a = ?")) {
            for (int n = 0; n < 50; n++) {
                update.setString(1, "u" + n);
                update.setInt(2, n * 10);
                update.addBatch();
            }
            attempt("updates", update::executeBatch);
            // Another type in the middle.
            update.setString(1, "x");
            update.setInt(2, 1);
            update.addBatch();
            update.setNull(1, Types.VARCHAR);
            update.setString(2, "2");
            update.addBatch();
            update.setInt(1, 5);
            update.setLong(2, 3);
            update.addBatch();
            attempt("mixed updates", update::executeBatch);
        }
        try (var upsert = db.prepareStatement("INSERT INTO batched (a, s) VALUES (?, ?) ON DUPLICATE KEY UPDATE s = VALUES(s)")) {
            for (int n = 298; n < 303; n++) {
                upsert.setInt(1, n);
                upsert.setString(2, "up" + n);
                upsert.addBatch();
            }
            attempt("upserts", upsert::executeBatch);
        }
        try (var select = db.prepareStatement("SELECT ?")) {
            select.setInt(1, 1);
            select.addBatch();
            select.setInt(1, 2);
            select.addBatch();
            attempt("selects", select::executeBatch);
        }
        try (var text = db.createStatement()) {
            for (var sql : new String[] {"INSERT INTO batched (a) VALUES (5000)", "UPDATE batched SET s = 'all'", "DELETE FROM batched WHERE a > 290", "SET @x = 1"}) text.addBatch(sql);
            attempt("texts", text::executeBatch);
            for (var sql : new String[] {"INSERT INTO batched (a) VALUES (6000)", "SELEKT", "INSERT INTO batched (a) VALUES (6001)"}) text.addBatch(sql);
            attempt("texts with an error", text::executeBatch);
        }
        say("batched", first(db, "SELECT COUNT(*), SUM(a), MIN(s), MAX(s), @x FROM batched"));
        db.setAutoCommit(false);
        try (var last = db.prepareStatement("INSERT INTO batched (a) VALUES (?)")) {
            for (int n = 7000; n < 7010; n++) {
                last.setInt(1, n);
                last.addBatch();
            }
            attempt("in a transaction", last::executeBatch);
        }
        db.rollback();
        db.setAutoCommit(true);
        say("batched", first(db, "SELECT COUNT(*) FROM batched"));
    }

    static List<Method> sorted(Class<?> type) {
        return Arrays.stream(type.getMethods()).sorted(Comparator.comparing(Method::getName).thenComparing(Method::getParameterCount)).collect(Collectors.toList());
    }

    static void several() throws Exception {
        heading("several statements");
        for (var options : new String[] {"allowMultiQueries=true", "allowMultiQueries=true&useServerPrepStmts=true", ""}) {
            try (var db = connect(options)) {
                for (var sql : new String[] {
                    "SELECT 1; SELECT 2, 3",
                    "INSERT INTO tx VALUES (50, 0); SELECT * FROM tx WHERE id = 50; UPDATE tx SET v = 9; DELETE FROM tx WHERE id = 50",
                    "SELECT 1; SELECT * FROM nothing; SELECT 3",
                    "SELECT 1;",
                    "SET @a = 1; SELECT @a; BEGIN; INSERT INTO tx VALUES (60, 0); ROLLBACK; SELECT COUNT(*) FROM tx",
                }) {
                    query(db, sql);
                    say("as text");
                    run(db, sql);
                }
                query(db, "SELECT ?; SELECT ?", 1, "x");
            }
        }
    }

    static void procedures(String options) throws Exception {
        heading("procedures " + options);
        var db = connect(options);
        run(db, "DROP PROCEDURE IF EXISTS results", "DROP PROCEDURE IF EXISTS fails", "DROP FUNCTION IF EXISTS added",
            "CREATE PROCEDURE results (IN n INT, INOUT m DECIMAL(10,2), OUT o VARCHAR(10)) BEGIN SELECT n; SET m = m + n; SET o = 'out'; SELECT id FROM tx ORDER BY id; END",
            "CREATE PROCEDURE fails (OUT a INT) BEGIN SET a = 1; SELECT 1; SIGNAL SQLSTATE '45001' SET MESSAGE_TEXT = 'as intended'; END",
            "CREATE FUNCTION added (a INT, b INT) RETURNS INT DETERMINISTIC RETURN a + b");
        try (var call = db.prepareCall("{call results(?, ?, ?)}")) {
            var about = call.getParameterMetaData();
            say("parameters", about.getParameterCount());
            for (int n = 1; n <= about.getParameterCount(); n++) {
                int at = n;
                attempt("parameter", () -> List.of(about.getParameterMode(at), about.getParameterType(at), about.getParameterTypeName(at), about.getPrecision(at), about.getScale(at), about.isNullable(at), about.isSigned(at)));
            }
            for (int round = 0; round < 2; round++) {
                call.setInt(1, 2 + round);
                call.setBigDecimal(2, new BigDecimal("3.50"));
                call.registerOutParameter(2, Types.DECIMAL);
                call.registerOutParameter(3, Types.VARCHAR);
                results(call, call.execute());
                attempt("out", () -> Arrays.asList(call.getBigDecimal(2), call.getString(3), call.getObject(2), call.wasNull()));
                attempt("by name", () -> Arrays.asList(call.getObject("m"), call.getString("o")));
            }
            attempt("by name", () -> {
                call.setInt("n", 5);
                call.setInt("m", 6);
                call.registerOutParameter("o", Types.VARCHAR);
                results(call, call.execute());
                return call.getString("o");
            });
        }
        try (var call = db.prepareCall("{? = call added(?, ?)}")) {
            call.registerOutParameter(1, Types.INTEGER);
            call.setInt(2, 20);
            call.setInt(3, 22);
            attempt("function", () -> List.of(call.execute(), call.getInt(1)));
        }
        try (var call = db.prepareCall("{call fails(?)}")) {
            call.registerOutParameter(1, Types.INTEGER);
            attempt("fails", () -> {
                results(call, call.execute());
                return call.getInt(1);
            });
        }
        attempt("no such", () -> db.prepareCall("{call no_such_procedure(?)}").execute());
        attempt("too few", () -> db.prepareCall("{call results(?)}").execute());
        attempt("in a batch", () -> {
            var call = db.prepareCall("{call results(?, @m, @o)}");
            for (int n = 0; n < 3; n++) {
                call.setInt(1, n);
                call.addBatch();
            }
            return call.executeBatch();
        });
        query(db, "CALL results(1, @m, @o)");
        query(db, "SELECT @m, @o");
        db.close();
    }

    static void resultSets(String options) throws Exception {
        heading("results " + options);
        var db = connect(options);
        run(db, "DROP TABLE IF EXISTS many", "CREATE TABLE many (id INT PRIMARY KEY, s VARCHAR(50), t TIMESTAMP NULL, b BLOB)");
        run(db, "INSERT INTO many (id, s) WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 900) SELECT x, CONCAT('row ', x) FROM n");
        for (int fetch : new int[] {0, 1, 7, 10_000, Integer.MIN_VALUE}) {
            attempt("fetch size " + fetch, () -> {
                try (var statement = db.prepareStatement("SELECT a.id, b.s FROM many a JOIN many b ON b.id <= 20 ORDER BY a.id, b.id")) {
                    statement.setFetchSize(fetch);
                    long sum = 0;
                    int count = 0;
                    try (var rows = statement.executeQuery()) {
                        while (rows.next()) {
                            sum += rows.getInt(1) + rows.getString(2).length();
                            // Another statement while this one is read.
                            if (++count == 40) sum += number(db, "SELECT COUNT(*) FROM tx");
                        }
                    }
                    return List.of(sum, count);
                }
            });
            attempt("left in the middle", () -> {
                try (var statement = db.createStatement()) {
                    statement.setFetchSize(fetch);
                    try (var rows = statement.executeQuery("SELECT a.id FROM many a, many b WHERE b.id <= 30")) {
                        rows.next();
                        say("first", rows.getInt(1) > 0);
                    }
                    return first(db, "SELECT 'next'");
                }
            });
            attempt("an error in the middle", () -> {
                try (var statement = db.createStatement()) {
                    statement.setFetchSize(fetch);
                    int count = 0;
                    try (var rows = statement.executeQuery("SELECT (SELECT b.id FROM many b WHERE b.id = a.id OR a.id > 800 AND b.id = 1) FROM many a ORDER BY a.id")) {
                        while (rows.next()) count++;
                    }
                    return count;
                }
            });
        }
        attempt("maximum of rows", () -> {
            try (var statement = db.prepareStatement("SELECT id FROM many ORDER BY id")) {
                statement.setMaxRows(5);
                statement.setMaxFieldSize(3);
                var found = new ArrayList<>();
                try (var rows = statement.executeQuery()) {
                    while (rows.next()) found.add(rows.getInt(1));
                }
                return found;
            }
        });
        try (var statement = db.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE); var rows = statement.executeQuery("SELECT id, s, t, b FROM many WHERE id <= 10 ORDER BY id")) {
            say("scroll", rows.last(), rows.getRow(), rows.first(), rows.absolute(-2), rows.getInt(1), rows.relative(-3), rows.getString("s"), rows.previous(), rows.isFirst(), rows.findColumn("t"));
            attempt("update", () -> {
                rows.absolute(3);
                rows.updateString("s", "changed");
                rows.updateTimestamp("t", Timestamp.valueOf("2024-01-01 00:00:00"));
                rows.updateBytes("b", new byte[] {1, 0});
                rows.updateRow();
                return row(rows);
            });
            attempt("insert", () -> {
                rows.moveToInsertRow();
                rows.updateInt(1, 5000);
                rows.updateString(2, "inserted");
                rows.insertRow();
                rows.moveToCurrentRow();
                return rows.getRow();
            });
            attempt("delete", () -> {
                rows.absolute(4);
                rows.deleteRow();
                return rows.getRow();
            });
            attempt("refresh", () -> {
                rows.absolute(2);
                rows.refreshRow();
                return row(rows);
            });
        }
        query(db, "SELECT id, s, t, b FROM many WHERE id <= 5 OR id >= 5000 ORDER BY id");
        try (var text = db.createStatement()) {
            say("not updatable", text.executeQuery("SELECT 1").getConcurrency());
            attempt("rows asked of an update", () -> text.executeQuery("UPDATE many SET s = s"));
            attempt("count asked of a read", () -> text.executeUpdate("SELECT 1"));
            attempt("both", () -> List.of(text.execute("SELECT 1"), text.getUpdateCount(), text.getMoreResults(), text.getUpdateCount()));
            attempt("closed", () -> {
                text.close();
                return text.executeQuery("SELECT 1");
            });
        }
        db.close();
    }

    static void transactions(String options) throws Exception {
        heading("transactions " + options);
        try (var db = connect(options); var other = connect(options)) {
            run(db, "DROP TABLE IF EXISTS tx", "CREATE TABLE tx (id INT PRIMARY KEY, v INT)");
            say("isolation", db.getTransactionIsolation(), db.getMetaData().getDefaultTransactionIsolation());
            for (int level : new int[] {Connection.TRANSACTION_READ_UNCOMMITTED, Connection.TRANSACTION_READ_COMMITTED, Connection.TRANSACTION_REPEATABLE_READ, Connection.TRANSACTION_SERIALIZABLE}) {
                db.setTransactionIsolation(level);
                db.setAutoCommit(false);
                say("level", level, db.getTransactionIsolation(), first(db, mariadb ? "SELECT @@tx_isolation" : "SELECT @@transaction_isolation"));
                run(db, "INSERT INTO tx VALUES (1, 1)");
                say("seen", number(db, "SELECT COUNT(*) FROM tx"), number(other, "SELECT COUNT(*) FROM tx"));
                db.rollback();
                db.setAutoCommit(true);
            }
            attempt("no such level", () -> {
                db.setTransactionIsolation(77);
                return null;
            });
            db.setTransactionIsolation(Connection.TRANSACTION_REPEATABLE_READ);
            db.setAutoCommit(false);
            run(db, "INSERT INTO tx VALUES (1, 1)");
            var named = db.setSavepoint("one");
            run(db, "INSERT INTO tx VALUES (2, 2)");
            var unnamed = db.setSavepoint();
            run(db, "INSERT INTO tx VALUES (3, 3)");
            db.rollback(unnamed);
            say("savepoint", number(db, "SELECT COUNT(*) FROM tx"));
            db.rollback(named);
            db.releaseSavepoint(named);
            attempt("released", () -> {
                db.rollback(named);
                return null;
            });
            db.commit();
            say("committed", number(other, "SELECT COUNT(*) FROM tx"), db.getAutoCommit());
            run(db, "INSERT INTO tx VALUES (4, 4)");
            db.setAutoCommit(true);
            say("committed by the mode", number(other, "SELECT COUNT(*) FROM tx"));
            run(db, "BEGIN", "INSERT INTO tx VALUES (5, 5)");
            attempt("commit by method", () -> {
                db.commit();
                return number(other, "SELECT COUNT(*) FROM tx");
            });
            db.setReadOnly(true);
            say("read-only", db.isReadOnly(), number(db, "SELECT COUNT(*) FROM tx"));
            run(db, "INSERT INTO tx VALUES (6, 6)");
            db.setReadOnly(false);
            run(db, "INSERT INTO tx VALUES (7, 7)");
            db.setAutoCommit(false);
            run(other, "SET SESSION innodb_lock_wait_timeout = 1");
            run(db, "UPDATE tx SET v = 9 WHERE id = 1");
            run(other, "UPDATE tx SET v = 8 WHERE id = 1");
            run(other, "SET SESSION innodb_lock_wait_timeout = 20");
            other.setAutoCommit(false);
            run(other, "UPDATE tx SET v = 8 WHERE id = 4");
            var blocked = CompletableFuture.supplyAsync(() -> outcome(other, "UPDATE tx SET v = 700 WHERE id = 1"));
            try (var watch = connect()) {
                say("waits", until(() -> number(watch, "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'UPDATE tx SET v = 700%'") > 0));
            }
            var ends = new TreeSet<>(Set.of(outcome(db, "UPDATE tx SET v = 7 WHERE id = 4"), blocked.get()));
            say("deadlock", new ArrayList<>(ends));
        }
    }

    /** How a statement goes; a transaction in which it fails is rolled back. */
    static String outcome(Connection db, String sql) {
        try (var statement = db.createStatement()) {
            statement.executeUpdate(sql);
            db.commit();
            return "went on";
        } catch (SQLException error) {
            try {
                db.rollback();
            } catch (SQLException second) {
                return failure(error) + " and " + failure(second);
            }
            return failure(error);
        }
    }

    static void metadata() throws Exception {
        heading("metadata");
        for (var options : new String[] {"", "nullCatalogMeansCurrent=false&useServerPrepStmts=true"}) {
            var db = connect(options);
            run(db, "DROP TABLE IF EXISTS child", "DROP TABLE IF EXISTS parent", "CREATE TABLE parent (a INT, b VARCHAR(20) NOT NULL DEFAULT 'x' COMMENT 'the b', c DECIMAL(10,2), d TIMESTAMP NULL, e ENUM('p','q'), f BIT(3), g TEXT, h INT UNSIGNED, i TINYINT(1), j INT GENERATED ALWAYS AS (a + 1) STORED, PRIMARY KEY (a, b), UNIQUE KEY one (c), KEY two (d, c)) COMMENT = 'all'",
                "CREATE TABLE child (id INT AUTO_INCREMENT PRIMARY KEY, a INT, b VARCHAR(20), CONSTRAINT up FOREIGN KEY (a, b) REFERENCES parent (a, b) ON DELETE CASCADE ON UPDATE SET NULL)");
            run(db, "CREATE OR REPLACE VIEW seen AS SELECT a, b FROM parent");
            var about = db.getMetaData();
            for (var method : sorted(DatabaseMetaData.class)) {
                if (method.getParameterCount() > 0 || method.getName().matches("getConnection|wait|notify.*|hashCode|toString|getClass")) continue;
                try {
                    var found = method.invoke(about);
                    if (found instanceof ResultSet rows) {
                        say(method.getName());
                        rows(rows);
                    } else {
                        say(method.getName(), found);
                    }
                } catch (Exception error) {
                    say(method.getName() + " fails", error);
                }
            }
            String[] any = {"TABLE", "VIEW"};
            say("tables");
            rows(about.getTables(schema, null, "%", any));
            rows(about.getTables(null, null, "par%", null));
            say("columns");
            rows(about.getColumns(schema, null, "parent", "%"));
            rows(about.getColumns(null, null, "seen", "a"));
            say("keys");
            rows(about.getPrimaryKeys(schema, null, "parent"));
            rows(about.getImportedKeys(schema, null, "child"));
            rows(about.getExportedKeys(schema, null, "parent"));
            rows(about.getCrossReference(schema, null, "parent", schema, null, "child"));
            rows(about.getBestRowIdentifier(schema, null, "parent", DatabaseMetaData.bestRowSession, true));
            rows(about.getVersionColumns(schema, null, "parent"));
            say("index");
            try (var rows = about.getIndexInfo(schema, null, "parent", false, true)) {
                columns(rows.getMetaData());
                // Without the estimates.
                while (rows.next()) say("  row", rows.getBoolean("NON_UNIQUE"), rows.getString("INDEX_NAME"), rows.getInt("ORDINAL_POSITION"), rows.getString("COLUMN_NAME"));
            }
            say("routines");
            rows(about.getProcedures(schema, null, "%"));
            rows(about.getProcedureColumns(schema, null, "results", "%"));
            rows(about.getFunctions(schema, null, "%"));
            rows(about.getFunctionColumns(schema, null, "%", "%"));
            say("others");
            attempt("privileges", () -> {
                rows(about.getTablePrivileges(schema, null, "parent"));
                rows(about.getColumnPrivileges(schema, null, "parent", "%"));
                return null;
            });
            rows(about.getUDTs(null, null, "%", null));
            rows(about.getSuperTables(null, null, "%"));
            attempt("supports", () -> List.of(about.supportsConvert(Types.INTEGER, Types.VARCHAR), about.supportsResultSetType(ResultSet.TYPE_SCROLL_SENSITIVE), about.supportsTransactionIsolationLevel(8)));
            db.close();
        }
    }

    static void options() throws Exception {
        heading("options");
        for (var options : new String[] {
            "useCompression=true", "useAffectedRows=true", "autocommit=false", "sessionVariables=sql_mode='ANSI_QUOTES',time_zone='+02:00'", "tinyInt1isBit=false&yearIsDateType=false",
            "useLegacyDatetimeCode=false&serverTimezone=+03:00", "usePipelineAuth=false&useBatchMultiSend=false", "useReadAheadInput=false", "interactiveClient=true", "connectionAttributes=program:compat,version:1",
            "createDatabaseIfNotExist=true", "jdbcCompliantTruncation=false", "useFractionalSeconds=false", "socketTimeout=20000&connectTimeout=20000", "assureReadOnly=true", "trackSchema=false", "useMysqlMetadata=true",
            "blankTableNameMeta=true", "maximizeMysqlCompatibility=true", "useOldAliasMetadataBehavior=true", "includeInnodbStatusInDeadlockExceptions=true", "tcpKeepAlive=true&tcpAbortiveClose=true",
        }) {
            heading(options);
            attempt("connects", () -> {
                try (var db = connect(options)) {
                    var statement = db.createStatement();
                    statement.executeUpdate("UPDATE tx SET v = 1");
                    say("affected", statement.executeUpdate("UPDATE tx SET v = 1"));
                    query(db, "SELECT t.v AS alias, @@sql_mode, @@time_zone, @@autocommit, @@wait_timeout, @@character_set_client, DATABASE(), CAST('2024-01-01 10:00:00.5' AS DATETIME(3)) AS d FROM tx t ORDER BY id LIMIT 1");
                    query(db, "SELECT connected.attr_name, connected.attr_value FROM performance_schema.session_account_connect_attrs connected WHERE processlist_id = CONNECTION_ID() AND attr_name NOT LIKE '\\_%' ORDER BY 1");
                    say("state", db.getAutoCommit(), db.isReadOnly(), db.getCatalog(), db.getSchema(), db.isValid(5));
                    query(db, "INSERT INTO tx VALUES ('x', 1)");
                    if (!db.getAutoCommit()) db.rollback();
                    return "well";
                }
            });
        }
        if (!mariadb) {
            // Only MySQL has a certificate without being told to.
            for (var options : new String[] {"useSsl=true&trustServerCertificate=true", "useSsl=true&trustServerCertificate=true&useCompression=true&useServerPrepStmts=true", "useSsl=true&trustServerCertificate=true&enabledSslProtocolSuites=TLSv1.2"}) {
                heading(options);
                attempt("connects", () -> {
                    try (var db = connect(options)) {
                        query(db, "SELECT DATABASE(), ?", "x".repeat(100_000));
                        return db.isValid(5);
                    }
                });
            }
            attempt("a certificate that nobody knows", () -> connect("useSsl=true").isValid(1));
        }
    }

    static void sessions() throws Exception {
        heading("sessions");
        try (var db = connect()) {
            var inner = db.unwrap(MariaDbConnection.class);
            say("its id", inner.getServerThreadId() == number(db, "SELECT CONNECTION_ID()"));
            db.setCatalog(schema + "_other");
            say("catalog", db.getCatalog(), first(db, "SELECT DATABASE(), @@character_set_database"));
            attempt("no such catalog", () -> {
                db.setCatalog("no_such");
                return null;
            });
            run(db, "USE " + schema);
            say("catalog", db.getCatalog());
            run(db, "SET @left = 5, SESSION time_zone = '+05:00'", "CREATE TEMPORARY TABLE mine (a INT)");
            attempt("reset", () -> {
                inner.reset();
                return first(db, "SELECT @left, @@time_zone, DATABASE()");
            });
            query(db, "SELECT * FROM mine");
            attempt("client info", () -> {
                db.setClientInfo("ApplicationName", "compat");
                return db.getClientInfo("ApplicationName");
            });
            say("native", db.nativeSQL("SELECT {fn NOW()}, {d '2024-01-01'}"));
            attempt("warnings", () -> {
                try (var statement = db.createStatement()) {
                    statement.execute("SELECT 1/0, CAST('x' AS SIGNED)");
                    warnings(statement);
                    var next = db.getWarnings();
                    db.clearWarnings();
                    return Arrays.asList(next == null ? null : next.getMessage(), db.getWarnings());
                }
            });
            say("valid", db.isValid(5), db.isClosed());
            db.close();
            say("closed", db.isValid(5), db.isClosed());
            attempt("closed", db::createStatement);
        }
        for (var options : new String[] {"useResetConnection=true", "useResetConnection=false", "useResetConnection=true&useServerPrepStmts=true&cachePrepStmts=true"}) {
            heading("pool " + options);
            try (var pool = new MariaDbPoolDataSource(url(schema, options + "&user=" + user + "&password=" + password + "&maxPoolSize=2&minPoolSize=1&staticGlobal&poolName=compat"))) {
                for (int round = 0; round < 4; round++) {
                    try (var db = pool.getConnection()) {
                        say("state", first(db, "SELECT @left, @@time_zone, DATABASE(), @@autocommit"), db.getAutoCommit(), db.getTransactionIsolation());
                        run(db, "SET @left = " + round);
                        query(db, "SELECT ? + 1", round);
                        if (round == 1) {
                            db.setAutoCommit(false);
                            db.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
                            run(db, "INSERT INTO tx VALUES (500, 0)");
                        }
                    }
                }
            }
        }
        try (var db = connect()) {
            say("left behind", number(db, "SELECT COUNT(*) FROM tx WHERE id = 500"));
        }
    }

    static void files() throws Exception {
        heading("files");
        var file = Files.createTempFile("compat", ".txt");
        Files.writeString(file, IntStream.range(10_000, 40_000).mapToObj(n -> n + "\t" + n + "\n").collect(Collectors.joining()));
        var load = "LOAD DATA LOCAL INFILE '" + file + "' INTO TABLE tx";
        try (var db = connect("allowLocalInfile=true")) {
            attempt("load", () -> db.createStatement().executeUpdate(load));
            attempt("missing", () -> db.createStatement().executeUpdate("LOAD DATA LOCAL INFILE '/no/such/file' INTO TABLE tx"));
            attempt("no table", () -> db.createStatement().executeUpdate("LOAD DATA LOCAL INFILE '" + file + "' INTO TABLE nothing"));
            attempt("from a stream", () -> {
                var statement = db.createStatement();
                statement.unwrap(MariaDbStatement.class).setLocalInfileInputStream(new ByteArrayInputStream("50000\t1\n50001\t2\nx\ty\n".getBytes()));
                int count = statement.executeUpdate("LOAD DATA LOCAL INFILE 'mine' INTO TABLE tx");
                warnings(statement);
                return count;
            });
            attempt("ignoring", () -> {
                var statement = db.createStatement();
                int count = statement.executeUpdate(load.replace("INTO", "IGNORE INTO"));
                say("warns", statement.getWarnings() != null);
                return count;
            });
        }
        try (var db = connect("allowLocalInfile=false")) {
            attempt("not allowed", () -> db.createStatement().executeUpdate(load));
            say("loaded", first(db, "SELECT COUNT(*), SUM(v) FROM tx"));
        }
        Files.delete(file);
    }

    static void large() throws Exception {
        heading("large");
        var big = new byte[17 << 20];
        for (int n = 0; n < big.length; n++) big[n] = (byte) n;
        try (var db = connect()) {
            run(db, "CREATE TABLE big (id INT PRIMARY KEY, b LONGBLOB)");
        }
        int id = 0;
        for (var options : new String[] {"", "useServerPrepStmts=true", "useCompression=true", "useServerPrepStmts=true&useCompression=true"}) {
            int number = id++;
            try (var db = connect(options)) {
                attempt("insert " + options, () -> {
                    var insert = db.prepareStatement("INSERT INTO big VALUES (?, ?)");
                    insert.setInt(1, number);
                    if (number % 2 == 0) insert.setBytes(2, big);
                    else insert.setBinaryStream(2, new ByteArrayInputStream(big));
                    return insert.executeUpdate();
                });
                attempt("select", () -> {
                    var select = db.prepareStatement("SELECT b FROM big WHERE id = ?");
                    select.setInt(1, number);
                    select.setFetchSize(1);
                    var rows = select.executeQuery();
                    return rows.next() && Arrays.equals(rows.getBytes(1), big);
                });
            }
        }
        try (var db = connect()) {
            attempt("too large", () -> {
                var insert = db.prepareStatement("INSERT INTO big VALUES (?, REPEAT('x', ?))");
                insert.setInt(1, 100);
                insert.setLong(2, 3_000_000_000L);
                return insert.executeUpdate();
            });
            run(db, "DROP TABLE big");
        }
    }

    static void errors() throws Exception {
        heading("errors");
        attempt("password", () -> DriverManager.getConnection(url(schema, ""), user, "wrong"));
        attempt("schema", () -> DriverManager.getConnection(url("no_such", ""), user, password));
        attempt("variable", () -> connect("sessionVariables=no_such_variable=1"));
        attempt("none", () -> {
            try (var db = DriverManager.getConnection(url("", ""), user, password)) {
                return Arrays.asList(db.getCatalog(), first(db, "SELECT DATABASE()"));
            }
        });
        try (var db = connect()) {
            attempt("empty", () -> db.createStatement().execute(""));
            attempt("syntax", () -> db.prepareStatement("SELEKT ?").execute());
            for (var sql : new String[] {"INSERT INTO tx VALUES (1, 1)", "INSERT INTO tx (id) VALUES (NULL)", "SELECT * FROM nothing", "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'mine', MYSQL_ERRNO = 5000", "INSERT INTO child (a, b) VALUES (77, 'x')"}) run(db, sql);
        }
        try (var db = connect("useServerPrepStmts=true")) {
            attempt("syntax", () -> db.prepareStatement("SELEKT ?").execute());
        }
    }

    static void timeouts() throws Exception {
        heading("timeouts");
        try (var db = connect(LIMIT); var holder = connect(); var watch = connect()) {
            holder.setAutoCommit(false);
            run(holder, "UPDATE tx SET v = 5 WHERE id = 1");
            Check runs = () -> number(watch, "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'UPDATE tx SET v = 300%'") > 0;
            var statement = db.createStatement();
            statement.setQueryTimeout(1);
            say("limit", statement.getQueryTimeout());
            attempt("within", () -> statement.executeUpdate("UPDATE tx SET v = 4 WHERE id = 4"));
            attempt("limited", () -> statement.executeUpdate("UPDATE tx SET v = 300 WHERE id = 1"));
            attempt("and then", () -> first(db, "SELECT 'well'"));
            try (var prepared = db.prepareStatement("UPDATE tx SET v = 301 WHERE id = ?")) {
                prepared.setQueryTimeout(1);
                prepared.setInt(1, 1);
                attempt("limited, prepared", prepared::executeUpdate);
                attempt("limited, batch", () -> {
                    prepared.setInt(1, 1);
                    prepared.addBatch();
                    return prepared.executeBatch();
                });
            }
            statement.setQueryTimeout(0);
            say("not yet", runs.holds());
            var cancelled = CompletableFuture.supplyAsync(() -> outcome(statement, "UPDATE tx SET v = 300 WHERE id = 1"));
            say("runs", until(runs));
            statement.cancel();
            say("cancelled", cancelled.get());
            attempt("cancel nothing", () -> {
                statement.cancel();
                return null;
            });
            attempt("and then", () -> first(db, "SELECT 'well'"));
            var victim = connect(LIMIT);
            var waiting = victim.createStatement();
            var ended = CompletableFuture.supplyAsync(() -> outcome(waiting, "UPDATE tx SET v = 300 WHERE id = 1"));
            say("runs", until(runs));
            run(db, "KILL QUERY " + victim.unwrap(MariaDbConnection.class).getServerThreadId());
            say("query killed", ended.get());
            say("valid", victim.isValid(5));
            run(db, "KILL " + victim.unwrap(MariaDbConnection.class).getServerThreadId());
            say("gone", until(() -> !victim.isValid(5)));
            // By then the driver may have found out by itself.
            attempt("gone", () -> {
                try {
                    return first(victim, "SELECT 1");
                } catch (SQLException error) {
                    return error.getSQLState();
                }
            });
            var slow = connect();
            slow.setNetworkTimeout(Runnable::run, 300);
            say("network timeout", slow.getNetworkTimeout());
            attempt("no answer", () -> first(slow, "SELECT SLEEP(5)"));
            say("closed", slow.isClosed(), slow.isValid(1));
            var aborted = connect();
            aborted.abort(Runnable::run);
            say("aborted", aborted.isClosed());
            attempt("aborted", () -> first(aborted, "SELECT 1"));
            holder.rollback();
        }
    }

    static String outcome(Statement statement, String sql) {
        try {
            return "count " + statement.executeUpdate(sql);
        } catch (SQLException error) {
            return failure(error);
        }
    }

    static void reads(String options) throws Exception {
        heading("reads " + options);
        int missed = 0;
        try (var db = connect(options); var other = connect(options)) {
            run(db, "DROP TABLE IF EXISTS rw", "CREATE TABLE rw (id INT PRIMARY KEY, v INT)");
            var insert = db.prepareStatement("INSERT INTO rw VALUES (?, ?)");
            for (int round = 0; round < ROUNDS; round++) {
                insert.setInt(1, round);
                insert.setInt(2, round);
                insert.executeUpdate();
                var reader = round % 5 == 0 ? connect(options) : other;
                try (var select = reader.prepareStatement("SELECT v FROM rw WHERE id = ?")) {
                    select.setInt(1, round);
                    var rows = select.executeQuery();
                    if (!rows.next() || rows.getInt(1) != round) missed++;
                }
                if (reader != other) reader.close();
            }
        }
        say("missed", missed);
    }

    public static void main(String[] a) throws Exception {
        System.setOut(new PrintStream(System.out, true, StandardCharsets.UTF_8));
        host = a[0];
        port = a[1];
        user = a[3];
        password = a[4];
        schema = a[5];
        flavor = a[6];
        mariadb = flavor.equals("mariadb");
        corpus("", false, 0, false);
        corpus("allowMultiQueries=true&useCompression=true&dumpQueriesOnException=true", false, 0, true);
        corpus("tinyInt1isBit=false&yearIsDateType=false&useLegacyDatetimeCode=false&serverTimezone=+03:00", false, 1, false);
        corpus("rewriteBatchedStatements=true&usePipelineAuth=false", true, 0, false);
        corpus("useServerPrepStmts=true", true, 0, true);
        corpus("useServerPrepStmts=true&cachePrepStmts=false&useCompression=true", true, 1, false);
        if (!mariadb) corpus("useSsl=true&trustServerCertificate=true", false, 0, false);
        for (var options : new String[] {"", "useServerPrepStmts=true", "rewriteBatchedStatements=true", "useServerPrepStmts=true&useBulkStmts=true", "useServerPrepStmts=true&useBulkStmts=false&useBatchMultiSend=false", "useServerPrepStmts=true&useBulkStmts=false&useBatchMultiSend=true&useBatchMultiSendNumber=7", "useServerPrepStmts=true&rewriteBatchedStatements=true&useCompression=true", "continueBatchOnError=false", "continueBatchOnError=false&useServerPrepStmts=true"}) parameters(options);
        for (var options : new String[] {"", "useServerPrepStmts=true"}) transactions(options);
        several();
        for (var options : new String[] {"", "useServerPrepStmts=true", "useCompression=true"}) {
            procedures(options);
            resultSets(options);
        }
        metadata();
        options();
        sessions();
        files();
        large();
        errors();
        timeouts();
        for (var options : new String[] {"", "useServerPrepStmts=true"}) reads(options);
        System.exit(0);
    }
}
