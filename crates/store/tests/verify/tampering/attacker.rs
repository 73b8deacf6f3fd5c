//! What the attacker has at hand, and how everything is put back.

use super::Kind;

/// The tables that are tampered with.
const TABLES: [&str; 15] = [
    "journal",
    "journal_positions",
    "payments",
    "transactions",
    "attempts",
    "sequencer_head",
    "tree_heads",
    "tree_tiles",
    "checkpoints",
    "cosignatures",
    "refused_entries",
    "idempotency_records",
    "operator_actions",
    "customers",
    "erasures",
];

/// Puts everything back.
pub fn put_all_back() -> String {
    TABLES.iter().map(|table| put_back(table)).collect()
}

/// Puts back the tables that these kinds name.
pub fn put_back_after(kinds: &[&Kind]) -> String {
    let touched = |table: &&&str| {
        kinds
            .iter()
            .any(|kind| kind.sql.contains(**table) || kind.sql.contains("swap_"))
    };
    TABLES
        .iter()
        .filter(touched)
        .map(|table| put_back(table))
        .collect()
}

/// Only what differs: emptying a table with partitions makes hundreds of files anew.
fn put_back(table: &str) -> String {
    format!(
        "delete from {table} it where not exists (select from saved_{table} was where was = it); \
         insert into {table} select was.* from saved_{table} was \
         where not exists (select from {table} it where it = was);"
    )
}

/// Functions of the attacker, and copies by which everything is put back.
pub fn setup(seed: u64) -> String {
    let mut sql = format!(
        "select setseed({});
         alter table tree_tiles disable trigger all;
         alter table attempts drop constraint attempts_number_positive;
         alter table attempts drop constraint attempts_ended_completely;
         alter table operator_actions drop constraint operator_actions_closed_completely;
         create function forged(leaf bytea) returns bytea language sql as
             $$ select convert_to(regexp_replace(convert_from(leaf, 'UTF8'), '\"event_type\":\"', \
                '\"event_type\":\"forged.'), 'UTF8') $$;
         create function forged_row(j journal) returns journal language plpgsql as $$
         begin
             j.leaf := forged(j.leaf);
             j.leaf_hash := sha256('\\x00'::bytea || j.leaf);
             j.entity_seq := j.entity_seq + 1;
             j.arrival := j.arrival + 1000000000;
             return j;
         end $$;
         create function least_row(j journal) returns journal language plpgsql as $$
         begin
             j.leaf := forged(j.leaf);
             j.leaf_hash := sha256('\\x00'::bytea || j.leaf);
             j.stream_id := '00000000-0000-0000-0000-000000000000';
             j.entity_seq := -9223372036854775808;
             j.arrival := -9223372036854775808;
             return j;
         end $$;
         create function moved_row(j journal, stream uuid, seq bigint) returns journal language plpgsql as $$
         begin
             j.stream_id := stream; j.payment_id := stream; j.entity_seq := seq;
             j.arrival := j.arrival + 1000000000;
             return j;
         end $$;
         create function invented(p payments, id uuid) returns payments language plpgsql as $$
         begin p.payment_id := id; return p; end $$;
         create function invented(t transactions) returns transactions language plpgsql as $$
         begin t.transaction_id := gen_random_uuid(); return t; end $$;
         create function invented_attempt(a attempts) returns attempts language plpgsql as $$
         begin a.number := a.number + 1000; a.attempt_id := gen_random_uuid(); return a; end $$;
         create function invented_record(r idempotency_records, payment uuid) returns idempotency_records \
         language plpgsql as $$
         begin r.idempotency_key := 'invented ' || gen_random_uuid(); r.payment_id := payment; return r; end $$;
         create function invented_action(o operator_actions) returns operator_actions language plpgsql as $$
         begin o.action_id := gen_random_uuid(); return o; end $$;
         create function attempt(leaf bytea) returns int language sql as
             $$ select (regexp_match(convert_from(leaf, 'UTF8'), '\"attempt\":\"?([0-9]+)'))[1]::int $$;
         create function swap_keys(customer uuid) returns void language plpgsql as $$
         declare other uuid;
         begin
             select customer_id into other from customers where customer_id <> customer order by 1 limit 1;
             update customers c set data_key = s.data_key from saved_customers s
             where (c.customer_id, s.customer_id) in ((customer, other), (other, customer));
         end $$;
         create function swap_positions(stream uuid) returns void language plpgsql as $$
         declare a bigint; b bigint;
         begin
             select position into a from journal_positions where stream_id = stream and entity_seq = 1;
             select position into b from journal_positions where stream_id = stream and entity_seq = 2;
             update journal_positions set position = 9000000000000 where position = a;
             update journal_positions set position = a where position = b;
             update journal_positions set position = b where position = 9000000000000;
         end $$;",
        f64::from(u32::try_from(seed % 1_000_000).unwrap_or(0)) / 1_000_000.0
    );
    for table in TABLES {
        let copy = format!("create table saved_{table} as select * from {table};");
        sql.push_str(&copy);
    }
    sql
}
