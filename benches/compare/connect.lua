-- What a web request does: connect, one point select, disconnect.

sysbench.cmdline.options = {
   rows = {"Rows in the table", 100000}
}

function thread_init()
   driver = sysbench.sql.driver()
end

function event()
   local con = driver:connect()
   con:query(string.format("SELECT c FROM sbtest1 WHERE id = %d", sysbench.rand.uniform(1, sysbench.opt.rows)))
   con:disconnect()
end
