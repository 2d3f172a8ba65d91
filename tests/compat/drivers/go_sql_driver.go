// Go's go-sql-driver/mysql.
package main

import (
	"bufio"
	"context"
	"crypto/md5"
	"database/sql"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

const rounds = 100

var host, port, socket, user, password, schema, flavor string

func show(value interface{}) string {
	switch value := value.(type) {
	case nil:
		return "nil"
	case []byte:
		if len(value) > 1000 {
			return fmt.Sprintf("md5:%x of %d", md5.Sum(value), len(value))
		}
		return fmt.Sprintf("bytes %q", value)
	case time.Time:
		return "time " + value.Format(time.RFC3339Nano)
	case string:
		return fmt.Sprintf("%q", value)
	case []interface{}:
		parts := []string{}
		for _, item := range value {
			parts = append(parts, show(item))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	default:
		return fmt.Sprintf("%T %v", value, value)
	}
}

func say(what string, values ...interface{}) {
	parts := []string{}
	for _, value := range values {
		parts = append(parts, show(value))
	}
	fmt.Println(what + ": " + strings.Join(parts, " "))
}

func heading(what string) { fmt.Println("== " + what) }

func failure(err error) interface{} {
	if found, ok := err.(*mysql.MySQLError); ok {
		return fmt.Sprintf("mysql %d %s", found.Number, found.Message)
	}
	return fmt.Sprintf("%T %v", err, err)
}

func check(err error) {
	if err != nil {
		panic(failure(err))
	}
}

func dsn(extra string, name string) string {
	return fmt.Sprintf("%s:%s@tcp(%s:%s)/%s?%s", user, password, host, port, name, extra)
}

func open(extra string) *sql.DB {
	db, err := sql.Open("mysql", dsn(extra, schema))
	check(err)
	return db
}

func conn(extra string) *sql.Conn {
	found, err := open(extra).Conn(context.Background())
	check(err)
	return found
}

func statements() []string {
	file, err := os.Open(os.Getenv("COMPAT_STATEMENTS"))
	check(err)
	defer file.Close()
	found := []string{}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		line := lines.Text()
		if line == "" || strings.HasPrefix(line, "-- ") {
			continue
		}
		if strings.HasPrefix(line, "@mariadb ") || strings.HasPrefix(line, "@mysql ") {
			if !strings.HasPrefix(line, "@"+flavor+" ") {
				continue
			}
			line = line[len(flavor)+2:]
		}
		found = append(found, line)
	}
	return found
}

func results(rows *sql.Rows) {
	defer rows.Close()
	for {
		types, err := rows.ColumnTypes()
		if err == nil {
			for _, column := range types {
				length, hasLength := column.Length()
				precision, scale, hasDecimals := column.DecimalSize()
				nullable, knows := column.Nullable()
				say("  column", column.Name(), column.DatabaseTypeName(), length, hasLength, precision, scale, hasDecimals, nullable, knows, fmt.Sprint(column.ScanType()))
			}
			for rows.Next() {
				row := make([]interface{}, len(types))
				into := make([]interface{}, len(types))
				for n := range row {
					into[n] = &row[n]
				}
				if err := rows.Scan(into...); err != nil {
					say("  scan fails", failure(err))
				}
				say("  row", row)
			}
		}
		if err := rows.Err(); err != nil {
			say("  fails", failure(err))
		}
		if !rows.NextResultSet() {
			break
		}
	}
	if err := rows.Err(); err != nil {
		say("  fails", failure(err))
	}
}

func rowless(statement string) bool {
	word := strings.ToUpper(strings.SplitN(statement, " ", 2)[0])
	switch word {
	case "INSERT", "UPDATE", "DELETE", "REPLACE", "CREATE", "DROP", "ALTER", "SET", "BEGIN", "COMMIT", "ROLLBACK":
		return !strings.Contains(statement, "RETURNING")
	}
	return false
}

func corpus(c *sql.Conn, prepared bool) {
	ctx := context.Background()
	for _, statement := range statements() {
		say(statement)
		if prepared {
			found, err := c.PrepareContext(ctx, statement)
			if err != nil {
				say("  fails", failure(err))
				continue
			}
			rows, err := found.QueryContext(ctx)
			if err != nil {
				say("  fails", failure(err))
			} else {
				results(rows)
			}
			found.Close()
		} else if rowless(statement) {
			done, err := c.ExecContext(ctx, statement)
			if err != nil {
				say("  fails", failure(err))
				continue
			}
			affected, _ := done.RowsAffected()
			last, _ := done.LastInsertId()
			say("  done", affected, last)
		} else {
			rows, err := c.QueryContext(ctx, statement)
			if err != nil {
				say("  fails", failure(err))
				continue
			}
			results(rows)
		}
	}
}

func fresh() {
	c := conn("")
	defer c.Close()
	for _, each := range [][2]string{{schema, "utf8mb4"}, {schema + "_other", "latin1"}} {
		_, err := c.ExecContext(context.Background(), "DROP DATABASE IF EXISTS "+each[0])
		check(err)
		_, err = c.ExecContext(context.Background(), "CREATE DATABASE "+each[0]+" CHARACTER SET "+each[1])
		check(err)
	}
}

func query(db *sql.DB, text string, arguments ...interface{}) {
	rows, err := db.Query(text, arguments...)
	if err != nil {
		say(text, "fails", failure(err))
		return
	}
	say(text)
	results(rows)
}

func exec(db *sql.DB, text string, arguments ...interface{}) {
	done, err := db.Exec(text, arguments...)
	if err != nil {
		say(text, "fails", failure(err))
		return
	}
	affected, _ := done.RowsAffected()
	last, _ := done.LastInsertId()
	say(text, affected, last)
}

func main() {
	a := os.Args
	host, port, socket, user, password, schema, flavor = a[1], a[2], a[3], a[4], a[5], a[6], a[7]
	mysql.SetLogger(nothing{})
	for _, mode := range []string{"", "parseTime=true&loc=UTC", "interpolateParams=true&columnsWithAlias=true", "multiStatements=true&clientFoundRows=true"} {
		heading("corpus " + mode)
		corpus(conn(mode), false)
		fresh()
	}
	heading("corpus prepared")
	corpus(conn("parseTime=true"), true)
	fresh()

	for _, mode := range []string{"", "interpolateParams=true"} {
		heading("parameters " + mode)
		db := open(mode)
		exec(db, "DROP TABLE IF EXISTS p")
		exec(db, "CREATE TABLE p (id INT AUTO_INCREMENT PRIMARY KEY, i BIGINT, u BIGINT UNSIGNED, d DECIMAL(20,5), f DOUBLE, s VARCHAR(100), b LONGBLOB, t DATETIME(6), o BOOL)")
		insert := "INSERT INTO p (i, u, d, f, s, b, t, o) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
		exec(db, insert, int64(9223372036854775807), uint64(9223372036854775807), "123456789012345.54321", 3.25, "Grüße 'x' 🎉", []byte{0, 1, 39, 255}, time.Date(2024, 5, 6, 7, 8, 9, 123456000, time.UTC), true)
		exec(db, insert, int64(-9223372036854775808), 0, -0.00001, -1e100, "", []byte{}, "1000-01-01 00:00:00", false)
		exec(db, insert, nil, nil, nil, nil, nil, nil, nil, nil)
		for _, from := range []interface{}{1, "2", 99} {
			query(db, "SELECT * FROM p WHERE id >= ? ORDER BY id", from)
		}
		exec(db, "INSERT INTO p (id) VALUES (?)", 1)
		query(db, "SELECT * FROM nothing WHERE a = ?", 1)
		query(db, "SELECT ?, ?", 1)
		star, err := db.Prepare("SELECT * FROM p WHERE id = ?")
		check(err)
		for round := 0; round < 2; round++ {
			rows, err := star.Query(1)
			if err != nil {
				say("star fails", failure(err))
				continue
			}
			columns, _ := rows.Columns()
			say("star", len(columns))
			rows.Close()
			exec(db, fmt.Sprintf("ALTER TABLE p ADD COLUMN late%d INT DEFAULT 3", round))
		}
		star.Close()
	}

	heading("several statements")
	m := open("multiStatements=true")
	query(m, "SELECT 1; SELECT 2, 3")
	exec(m, "INSERT INTO p (s) VALUES ('m'); UPDATE p SET s = 'n' WHERE s = 'm'; DELETE FROM p WHERE s = 'n'")
	query(open(""), "SELECT 1; SELECT 2")
	exec(m, "CREATE PROCEDURE results (n INT) BEGIN SELECT n; SELECT id FROM p WHERE id <= n ORDER BY id; UPDATE p SET f = 1; END")
	query(m, "CALL results(2)")
	query(m, "CALL results(?)", 2)

	heading("transactions")
	db, other := open(""), open("")
	exec(db, "CREATE TABLE tx (id INT PRIMARY KEY, v INT)")
	for _, options := range []*sql.TxOptions{nil, {ReadOnly: true}, {Isolation: sql.LevelSerializable}, {Isolation: sql.LevelReadUncommitted}, {Isolation: sql.LevelLinearizable}} {
		tx, err := db.BeginTx(context.Background(), options)
		if err != nil {
			say("begin fails", failure(err))
			continue
		}
		_, err = tx.Exec("INSERT INTO tx VALUES (1, 1)")
		say("insert", failure(err))
		var inside, outside int
		check(tx.QueryRow("SELECT COUNT(*) FROM tx").Scan(&inside))
		check(other.QueryRow("SELECT COUNT(*) FROM tx").Scan(&outside))
		say("seen", inside, outside)
		say("rolled back", failure(tx.Rollback()))
	}
	tx, err := db.Begin()
	check(err)
	_, err = tx.Exec("INSERT INTO tx VALUES (1, 1)")
	check(err)
	check(tx.Commit())
	tx, err = db.Begin()
	check(err)
	_, err = tx.Exec("UPDATE tx SET v = 2")
	check(err)
	exec(open("innodb_lock_wait_timeout=1"), "UPDATE tx SET v = 3")
	check(tx.Rollback())
	query(db, "SELECT * FROM tx")

	heading("options")
	for _, extra := range []string{"charset=latin1", "charset=utf8mb4&collation=utf8mb4_bin", "sql_mode=ANSI_QUOTES", "time_zone=%27%2B02%3A00%27", "timeout=20s&readTimeout=20s&writeTimeout=20s", "autocommit=0", "maxAllowedPacket=0", "rejectReadOnly=true", "checkConnLiveness=true", "clientFoundRows=true"} {
		heading(extra)
		o := open(extra)
		exec(o, "UPDATE tx SET v = 1")
		exec(o, "UPDATE tx SET v = 1")
		query(o, "SELECT @@character_set_client, @@collation_connection, @@sql_mode, @@time_zone, @@autocommit, v FROM tx")
		o.Close()
	}
	unix, err := sql.Open("mysql", fmt.Sprintf("%s:%s@unix(%s)/%s", user, password, socket, schema))
	check(err)
	query(unix, "SELECT DATABASE()")

	heading("files")
	mysql.RegisterReaderHandler("mine", func() io.Reader {
		text := &strings.Builder{}
		for n := 1000; n < 20000; n++ {
			fmt.Fprintf(text, "%d\t%d\n", n, n)
		}
		return strings.NewReader(text.String())
	})
	exec(db, "LOAD DATA LOCAL INFILE 'Reader::mine' INTO TABLE tx")
	exec(db, "LOAD DATA LOCAL INFILE 'Reader::nobody' INTO TABLE tx")
	exec(db, "LOAD DATA LOCAL INFILE '/no/such/file' INTO TABLE tx")
	query(db, "SELECT COUNT(*), SUM(v) FROM tx")

	heading("large")
	big := make([]byte, 17<<20)
	for n := range big {
		big[n] = byte(n)
	}
	exec(db, "CREATE TABLE big (b LONGBLOB)")
	l := open("maxAllowedPacket=0")
	_, err = l.Exec("INSERT INTO big VALUES (?)", big)
	say("insert", failure(err))
	var back []byte
	check(l.QueryRow("SELECT b FROM big").Scan(&back))
	say("same", string(back) == string(big))

	heading("errors")
	for _, wrong := range []string{fmt.Sprintf("%s:wrong@tcp(%s:%s)/%s", user, host, port, schema), fmt.Sprintf("nobody@tcp(%s:%s)/%s", host, port, schema), dsn("", "no_such"), dsn("charset=klingon", schema), dsn("no_such_variable=1", schema)} {
		bad, err := sql.Open("mysql", wrong)
		check(err)
		say("wrong", failure(bad.Ping()))
	}
	exec(db, "")
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	_, err = db.ExecContext(ctx, "SELECT SLEEP(10)")
	cancel()
	say("cancelled", failure(err))
	say("and then", failure(db.Ping()))

	heading("reads")
	missed := 0
	for round := 0; round < rounds; round++ {
		_, err := db.Exec("INSERT INTO tx VALUES (?, ?)", 100000+round, round)
		check(err)
		reader := other
		if round%5 == 0 {
			reader = open("")
		}
		found := -1
		reader.QueryRow("SELECT v FROM tx WHERE id = ?", 100000+round).Scan(&found)
		if found != round {
			missed++
		}
		if reader != other {
			reader.Close()
		}
	}
	say("missed", missed)

	heading("killing")
	victim := conn("")
	var id int
	check(victim.QueryRowContext(context.Background(), "SELECT CONNECTION_ID()").Scan(&id))
	_, err = db.Exec(fmt.Sprintf("KILL %d", id))
	say("kill", failure(err))
	gone := false
	for deadline := time.Now().Add(20 * time.Second); !gone && time.Now().Before(deadline); {
		gone = victim.PingContext(context.Background()) != nil
	}
	say("gone", gone)
}

type nothing struct{}

func (nothing) Print(v ...interface{}) {}
