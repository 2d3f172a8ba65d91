//! Session variables whose value can be carried to another connection.

/// A session variable that `SET SESSION name = value` gives the same meaning on any connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// Its name, lower case.
    pub name: &'static str,
    /// The name under which two spellings of one variable are kept (`tx_isolation` is
    /// `transaction_isolation`); equal to `name` for all others.
    pub canonical: &'static str,
    /// It changes how the bytes of statements are read: `sql_mode`, `character_set_client`.
    pub changes_reading: bool,
}

impl Variable {
    const fn plain(name: &'static str) -> Self {
        Self {
            name,
            canonical: name,
            changes_reading: false,
        }
    }

    const fn alias(name: &'static str, canonical: &'static str) -> Self {
        Self {
            name,
            canonical,
            changes_reading: false,
        }
    }

    const fn reading(name: &'static str) -> Self {
        Self {
            name,
            canonical: name,
            changes_reading: true,
        }
    }
}

/// Finds a variable by its name in any case; `None` if it cannot be carried.
///
/// `autocommit` is not here: it has its own [`super::set::Assignment`].
pub fn find(name: &[u8]) -> Option<&'static Variable> {
    let compare = |variable: &Variable| {
        variable
            .name
            .bytes()
            .cmp(name.iter().map(u8::to_ascii_lowercase))
    };
    let index = CARRIED.binary_search_by(compare).ok()?;
    CARRIED.get(index)
}

/// Sorted by name. Not here, because they belong to one connection or one server: `timestamp`,
/// `insert_id`, `last_insert_id`, `rand_seed1`, `sql_log_bin`, `binlog_format`, `gtid_*`,
/// `pseudo_*`, `profiling`, `optimizer_trace`, `session_track_*`, `resultset_metadata`.
const CARRIED: &[Variable] = &[
    Variable::plain("alter_algorithm"),
    Variable::plain("analyze_sample_percentage"),
    Variable::plain("auto_increment_increment"),
    Variable::plain("auto_increment_offset"),
    Variable::plain("big_tables"),
    Variable::plain("block_encryption_mode"),
    Variable::plain("bulk_insert_buffer_size"),
    Variable::reading("character_set_client"),
    Variable::plain("character_set_collations"),
    Variable::plain("character_set_connection"),
    Variable::plain("character_set_results"),
    Variable::plain("check_constraint_checks"),
    Variable::plain("collation_connection"),
    Variable::plain("completion_type"),
    Variable::plain("cte_max_recursion_depth"),
    Variable::plain("default_collation_for_utf8mb4"),
    Variable::plain("default_storage_engine"),
    Variable::plain("default_tmp_storage_engine"),
    Variable::plain("default_week_format"),
    Variable::plain("div_precision_increment"),
    Variable::plain("end_markers_in_json"),
    Variable::plain("eq_range_index_dive_limit"),
    Variable::plain("expensive_subquery_limit"),
    Variable::plain("explain_format"),
    Variable::plain("explain_json_format_version"),
    Variable::plain("explicit_defaults_for_timestamp"),
    Variable::plain("foreign_key_checks"),
    Variable::plain("group_concat_max_len"),
    Variable::plain("group_replication_consistency"),
    Variable::plain("histogram_size"),
    Variable::plain("histogram_type"),
    Variable::plain("idle_readonly_transaction_timeout"),
    Variable::plain("idle_transaction_timeout"),
    Variable::plain("idle_write_transaction_timeout"),
    Variable::plain("in_predicate_conversion_threshold"),
    Variable::plain("information_schema_stats_expiry"),
    Variable::plain("innodb_ft_enable_stopword"),
    Variable::plain("innodb_lock_wait_timeout"),
    Variable::plain("innodb_strict_mode"),
    Variable::plain("innodb_table_locks"),
    Variable::plain("interactive_timeout"),
    Variable::plain("internal_tmp_mem_storage_engine"),
    Variable::plain("join_buffer_size"),
    Variable::plain("join_cache_level"),
    Variable::plain("lc_messages"),
    Variable::plain("lc_time_names"),
    Variable::plain("lock_wait_timeout"),
    Variable::plain("long_query_time"),
    Variable::plain("low_priority_updates"),
    Variable::plain("max_delayed_threads"),
    Variable::plain("max_error_count"),
    Variable::plain("max_execution_time"),
    Variable::plain("max_heap_table_size"),
    Variable::plain("max_join_size"),
    Variable::plain("max_length_for_sort_data"),
    Variable::plain("max_recursive_iterations"),
    Variable::plain("max_seeks_for_key"),
    Variable::plain("max_sort_length"),
    Variable::plain("max_sp_recursion_depth"),
    Variable::plain("max_statement_time"),
    Variable::plain("min_examined_row_limit"),
    Variable::plain("mrr_buffer_size"),
    Variable::plain("net_read_timeout"),
    Variable::plain("net_retry_count"),
    Variable::plain("net_write_timeout"),
    Variable::plain("note_verbosity"),
    Variable::plain("old_alter_table"),
    Variable::plain("old_mode"),
    Variable::plain("optimizer_prune_level"),
    Variable::plain("optimizer_search_depth"),
    Variable::plain("optimizer_switch"),
    Variable::plain("optimizer_use_condition_selectivity"),
    Variable::plain("preload_buffer_size"),
    Variable::plain("query_alloc_block_size"),
    Variable::plain("query_cache_type"),
    Variable::plain("query_prealloc_size"),
    Variable::plain("range_alloc_block_size"),
    Variable::plain("range_optimizer_max_mem_size"),
    Variable::plain("read_buffer_size"),
    Variable::plain("read_rnd_buffer_size"),
    Variable::plain("rowid_merge_buff_size"),
    Variable::plain("set_operations_buffer_size"),
    Variable::plain("show_create_table_verbosity"),
    Variable::plain("show_old_temporals"),
    Variable::plain("sort_buffer_size"),
    Variable::plain("sql_auto_is_null"),
    Variable::plain("sql_big_selects"),
    Variable::plain("sql_buffer_result"),
    Variable::plain("sql_generate_invisible_primary_key"),
    Variable::plain("sql_if_exists"),
    Variable::reading("sql_mode"),
    Variable::plain("sql_notes"),
    Variable::plain("sql_quote_show_create"),
    Variable::plain("sql_require_primary_key"),
    Variable::plain("sql_safe_updates"),
    Variable::plain("sql_select_limit"),
    Variable::plain("sql_warnings"),
    Variable::alias("storage_engine", "default_storage_engine"),
    Variable::plain("system_versioning_alter_history"),
    Variable::plain("system_versioning_asof"),
    Variable::plain("time_zone"),
    Variable::plain("tmp_memory_table_size"),
    Variable::plain("tmp_table_size"),
    Variable::plain("transaction_alloc_block_size"),
    Variable::plain("transaction_isolation"),
    Variable::plain("transaction_prealloc_size"),
    Variable::plain("transaction_read_only"),
    Variable::alias("tx_isolation", "transaction_isolation"),
    Variable::alias("tx_read_only", "transaction_read_only"),
    Variable::plain("unique_checks"),
    Variable::plain("updatable_views_with_limit"),
    Variable::plain("use_stat_tables"),
    Variable::plain("wait_timeout"),
    Variable::plain("windowing_use_high_precision"),
    Variable::plain("wsrep_sync_wait"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_searchable() {
        assert!(CARRIED.is_sorted_by(|a, b| a.name < b.name));
        for variable in CARRIED {
            assert_eq!(find(variable.name.as_bytes()), Some(variable));
            assert_eq!(
                find(variable.name.to_ascii_uppercase().as_bytes()),
                Some(variable)
            );
            assert!(
                CARRIED.iter().any(|other| other.name == variable.canonical)
                    || variable.canonical != variable.name
            );
        }
        for name in [
            "",
            "autocommit",
            "sql_log_bin",
            "timestamp",
            "insert_id",
            "zzz",
            "sql_mode ",
        ] {
            assert_eq!(find(name.as_bytes()), None, "{name}");
        }
    }
}
