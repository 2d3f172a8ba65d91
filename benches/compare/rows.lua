-- One large result per event: the whole of a table of --rows rows, as text.

sysbench.cmdline.options = {
   rows = {"Rows in each result", 100000}
}

function thread_init()
   con = sysbench.sql.driver():connect()
   statement = string.format("SELECT * FROM sbtest1 LIMIT %d", sysbench.opt.rows)
end

function event()
   con:query(statement)
end

function thread_done()
   con:disconnect()
end
