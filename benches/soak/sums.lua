-- A query with some work in it: a hundred rows by a range of the primary key, summed up.
sysbench.cmdline.options = {
   rows = {"rows of sbtest1", 100000},
   range = {"rows of one query", 100},
}

function thread_init()
   connection = sysbench.sql.driver():connect()
end

function event()
   local first = sysbench.rand.uniform(1, sysbench.opt.rows - sysbench.opt.range)
   connection:query("SELECT SUM(k), COUNT(DISTINCT c) FROM sbtest1 WHERE id BETWEEN " .. first .. " AND "
      .. first + sysbench.opt.range - 1)
end

function thread_done()
   connection:disconnect()
end
