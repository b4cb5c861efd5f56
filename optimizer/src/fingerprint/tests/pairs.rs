//! Pairs of statements: the same rows written in two ways, and different rows written alike.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::prelude::SessionConfig;

use super::support::{Session, Tables, runtime};

pub(crate) fn shop() -> Tables {
    let mut tables = Tables::new();
    let table = |columns: &[(&str, DataType)]| {
        let fields: Vec<Field> = columns.iter().map(|(name, ty)| Field::new(*name, ty.clone(), true)).collect();
        Arc::new(Schema::new(fields))
    };
    let (int, text, money) = (DataType::Int64, DataType::Utf8, DataType::Decimal128(12, 2));
    let schemas = [
        (
            "orders",
            table(&[
                ("id", int.clone()),
                ("customer", int.clone()),
                ("day", DataType::Date32),
                ("total", money.clone()),
            ]),
        ),
        (
            "customers",
            table(&[
                ("id", int.clone()),
                ("name", text.clone()),
                ("nation", int.clone()),
                ("score", DataType::Float64),
            ]),
        ),
        ("nations", table(&[("id", int.clone()), ("name", text.clone())])),
        ("items", table(&[("order_id", int.clone()), ("part", int.clone()), ("price", money), ("note", text)])),
        ("edges", table(&[("src", int.clone()), ("dst", int)])),
    ];
    for (name, schema) in schemas {
        let empty = RecordBatch::new_empty(Arc::clone(&schema));
        let rows = datafusion::arrow::compute::concat_batches(&schema, [&empty]).unwrap();
        tables.add(name, schema, std::iter::once(rows));
    }
    tables
}

/// A session in which nothing is folded away because the tables are empty.
pub(super) async fn session(tables: &Tables) -> Session {
    let config = SessionConfig::new().with_target_partitions(3).with_collect_statistics(false);
    tables.session(config).await
}

const SAME: &[(&str, &str, &str)] = &[
    ("aliases", "select * from orders o where o.id > 3", "select * from orders x where x.id > 3"),
    ("output names", "select id as a from orders where day is null", "select id as b from orders where day is null"),
    ("projected columns", "select id from orders where total > 5", "select * from orders where total > 5"),
    (
        "order of conjuncts",
        "select * from orders where id > 3 and total < 5",
        "select * from orders where total < 5 and id > 3",
    ),
    ("sides of a comparison", "select * from orders where id > 3", "select * from orders where 3 < id"),
    ("commuted sum", "select * from orders where id + customer = 7", "select * from orders where 7 = customer + id"),
    ("between", "select * from orders where id between 3 and 9", "select * from orders where id >= 3 and id <= 9"),
    ("not less", "select * from orders where not (id < 3)", "select * from orders where id >= 3"),
    (
        "in and or",
        "select * from orders where id in (1, 2, 5, 7, 9)",
        "select * from orders where id in (9, 7) or id = 5 or id in (2, 1)",
    ),
    ("folded literal", "select * from orders where id = 1 + 2", "select * from orders where id = 3"),
    (
        "folded cast",
        "select * from orders where day >= date '2024-01-01'",
        "select * from orders where day >= cast('2024-01-01' as date)",
    ),
    ("repeated condition", "select * from orders where id > 3 and id > 3", "select * from orders where id > 3"),
    (
        "on and where of an inner join",
        "select 1 from orders o join customers c on o.customer = c.id and o.total > 5",
        "select 1 from orders o, customers c where o.customer = c.id and o.total > 5",
    ),
    (
        "order of a join",
        "select o.id from orders o join customers c on o.customer = c.id join nations n on c.nation = n.id",
        "select o.id from nations n join customers c on n.id = c.nation join orders o on c.id = o.customer",
    ),
    (
        "class of keys",
        "select 1 from orders a, orders b, orders c where a.id = b.id and b.id = c.id and a.total > 1",
        "select 1 from orders x, orders y, orders z where y.id = x.id and y.id = z.id and z.total > 1",
    ),
    (
        "self-join told apart by filters",
        "select 1 from orders a join orders b on a.customer = b.customer where a.id = 1 and b.id = 2",
        "select 1 from orders a join orders b on a.customer = b.customer where a.id = 2 and b.id = 1",
    ),
    (
        "self-join told apart by keys",
        "select 1 from edges a, edges b, edges c where a.dst = b.src and b.dst = c.src",
        "select 1 from edges a, edges b, edges c where c.dst = a.src and a.dst = b.src",
    ),
    (
        "condition on a key",
        "select 1 from orders o, items i where o.id = i.order_id and o.id > 5",
        "select 1 from orders o, items i where o.id = i.order_id and i.order_id > 5",
    ),
    (
        "right and left join",
        "select 1 from orders o left join customers c on o.customer = c.id",
        "select 1 from customers c right join orders o on c.id = o.customer",
    ),
    (
        "full join",
        "select 1 from orders o full join customers c on o.customer = c.id",
        "select 1 from customers c full join orders o on o.customer = c.id",
    ),
    ("distinct and group by", "select distinct customer from orders", "select customer from orders group by customer"),
    (
        "order of group keys",
        "select customer, day, sum(total) from orders group by customer, day",
        "select day, sum(total), customer from orders group by day, customer",
    ),
    (
        "repeated aggregate",
        "select sum(total) as a, sum(total) as b from orders group by day",
        "select sum(total) from orders group by day",
    ),
    ("count of rows", "select count(*) from orders group by day", "select count(1) from orders group by day"),
    (
        "exists and in",
        "select * from orders o where exists (select 1 from customers c where c.id = o.customer)",
        "select * from orders o where o.customer in (select id from customers)",
    ),
    (
        "semi join below and above",
        "select 1 from (select * from orders where customer in (select id from customers)) o, items i where o.id = i.order_id",
        "select 1 from orders o join items i on o.id = i.order_id where o.customer in (select id from customers)",
    ),
    (
        "subquery or not",
        "select * from (select id, total * 2 as t from orders) where t > 4 and id = 1",
        "select * from orders where total * 2 > 4 and id = 1",
    ),
    (
        "with or not",
        "with w as (select customer, sum(total) as s from orders group by customer) select * from w where s > 5",
        "select customer, sum(total) from orders group by customer having sum(total) > 5",
    ),
    (
        "order of a union",
        "select id from orders union all select order_id from items",
        "select order_id from items union all select id from orders",
    ),
    (
        "window",
        "select *, rank() over (partition by customer order by total) as r from orders",
        "select rank() over (partition by o.customer order by o.total) as place, o.* from orders o",
    ),
    (
        "scalar subquery",
        "select * from orders where total > (select avg(total) from orders)",
        "select * from orders o where (select avg(x.total) from orders x) < o.total",
    ),
    (
        "grouping sets",
        "select customer, day, sum(total) from orders group by rollup (customer, day)",
        "select customer, day, sum(total) from orders group by grouping sets ((customer, day), (), (customer))",
    ),
    (
        "aggregate of a symmetric self-join",
        "select a.src from edges a, edges b where a.dst = b.dst group by a.src",
        "select b.src from edges a, edges b where a.dst = b.dst group by b.src",
    ),
    (
        "join of three with a cast",
        "select 1 from orders o, customers c where o.total = c.id and o.id = c.id",
        "select 1 from customers c, orders o where c.id = o.id and c.id = o.total",
    ),
];

const DIFFERENT: &[(&str, &str, &str)] = &[
    ("tables", "select id from orders", "select id from customers"),
    ("columns", "select * from orders where id = 3", "select * from orders where customer = 3"),
    ("strictness", "select * from orders where id > 3", "select * from orders where id >= 3"),
    ("and, or", "select * from orders where id = 3 and total = 4", "select * from orders where id = 3 or total = 4"),
    (
        "order of a difference",
        "select * from orders where id - customer = 1",
        "select * from orders where customer - id = 1",
    ),
    (
        "on and where of an outer join",
        "select 1 from orders o left join customers c on o.customer = c.id and o.total > 5",
        "select 1 from orders o left join customers c on o.customer = c.id where o.total > 5",
    ),
    (
        "on and where of the optional side",
        "select 1 from orders o left join customers c on o.customer = c.id and c.score is null",
        "select 1 from orders o left join customers c on o.customer = c.id where c.score is null",
    ),
    (
        "side of an outer join",
        "select 1 from orders o left join customers c on o.customer = c.id",
        "select 1 from customers c left join orders o on o.customer = c.id",
    ),
    (
        "inner and outer",
        "select 1 from orders o join customers c on o.customer = c.id",
        "select 1 from orders o left join customers c on o.customer = c.id",
    ),
    (
        "semi and inner",
        "select o.id from orders o where o.customer in (select id from customers)",
        "select o.id from orders o join customers c on o.customer = c.id",
    ),
    (
        "semi and anti",
        "select o.id from orders o where exists (select 1 from customers c where c.id = o.customer)",
        "select o.id from orders o where not exists (select 1 from customers c where c.id = o.customer)",
    ),
    (
        "anti and not in",
        "select o.id from orders o where not exists (select 1 from customers c where c.id = o.customer)",
        "select o.id from orders o where o.customer not in (select id from customers)",
    ),
    (
        "which occurrence is filtered",
        "select 1 from edges a, edges b where a.dst = b.src and a.src = 1",
        "select 1 from edges a, edges b where a.dst = b.src and b.src = 1",
    ),
    (
        "chain and star",
        "select 1 from edges a, edges b, edges c where a.dst = b.src and b.dst = c.src",
        "select 1 from edges a, edges b, edges c where a.dst = b.src and a.dst = c.src",
    ),
    (
        "ring and two chains",
        "select 1 from edges a, edges b, edges c, edges d where a.dst = b.src and b.dst = c.src and c.dst = d.src and d.dst = a.src",
        "select 1 from edges a, edges b, edges c, edges d where a.dst = b.src and b.dst = a.src and c.dst = d.src and d.dst = c.src",
    ),
    (
        "number of occurrences",
        "select 1 from edges a, edges b where a.dst = b.dst",
        "select 1 from edges a, edges b, edges c where a.dst = b.dst and b.dst = c.dst",
    ),
    ("group keys", "select customer from orders group by customer", "select day from orders group by day"),
    ("aggregate functions", "select sum(total) from orders group by day", "select min(total) from orders group by day"),
    (
        "distinct aggregate",
        "select sum(customer), count(id) from orders group by day",
        "select sum(customer), count(distinct id) from orders group by day",
    ),
    (
        "filtered aggregate",
        "select sum(total) from orders group by day",
        "select sum(total) filter (where id > 1) from orders group by day",
    ),
    (
        "having",
        "select day from orders group by day having sum(total) > 1",
        "select day from orders group by day having max(total) > 1",
    ),
    (
        "decimal scale",
        "select * from orders where cast(total as decimal(10, 1)) > customer",
        "select * from orders where cast(total as decimal(10, 0)) > customer",
    ),
    (
        "null-safe",
        "select 1 from orders o join customers c on o.customer = c.id",
        "select 1 from orders o join customers c on o.customer is not distinct from c.id",
    ),
    ("like", "select * from items where note like 'a%b'", "select * from items where note not like 'a%b'"),
    (
        "grouping sets",
        "select customer, day, sum(total) from orders group by rollup (customer, day)",
        "select customer, day, sum(total) from orders group by cube (customer, day)",
    ),
    (
        "windows",
        "select * from (select *, rank() over (partition by customer order by total) as r from orders) where r = 1",
        "select * from (select *, rank() over (partition by customer order by total desc) as r from orders) where r = 1",
    ),
    (
        "ignored nulls",
        "select * from (select *, lag(total) over (order by id) as r from orders) where r = 1",
        "select * from (select *, lag(total) ignore nulls over (order by id) as r from orders) where r = 1",
    ),
    (
        "union of one twice",
        "select id from orders union all select id from orders",
        "select id from orders union all select order_id from items",
    ),
    ("limits", "select * from orders order by id limit 5", "select * from orders order by total limit 5"),
    (
        "scalar subqueries",
        "select * from orders where total > (select avg(total) from orders)",
        "select * from orders where total > (select max(total) from orders)",
    ),
    (
        "symmetric self-join with two keys",
        "select a.src, b.src from edges a, edges b where a.dst = b.dst group by a.src, b.src",
        "select a.src from edges a, edges b where a.dst = b.dst group by a.src",
    ),
];

/// The same template, but not the same fingerprint.
const LITERALS: &[(&str, &str, &str)] = &[
    ("number", "select * from orders where id > 3", "select * from orders where id > 4"),
    ("text", "select * from customers where name = 'a'", "select * from customers where name = 'b'"),
    (
        "date",
        "select * from orders where day >= date '2024-01-01'",
        "select * from orders where day >= date '2025-01-01'",
    ),
    ("list", "select * from orders where id in (1, 2, 3, 4, 5)", "select * from orders where id in (7, 8, 9, 10)"),
    (
        "under an aggregate",
        "select day, sum(total) from orders where id > 3 group by day",
        "select day, sum(total) from orders where id > 9 group by day",
    ),
    ("limit", "select * from orders order by id limit 5", "select * from orders order by id limit 7"),
    (
        "two filters of a self-join exchanged",
        "select 1 from edges a, edges b where a.dst = b.src and a.src = 1 and b.dst = 2",
        "select 1 from edges a, edges b where a.dst = b.src and a.src = 2 and b.dst = 1",
    ),
    (
        "order of occurrences",
        "select 1 from orders a, orders b where a.customer = b.customer and a.id = 1 and b.id = 2",
        "select 1 from orders a, orders b where a.customer = b.customer and a.id = 8 and b.id = 7",
    ),
    (
        "in a projection",
        "select x, count(*) from (select id + 3 as x from orders) group by x",
        "select x, count(*) from (select id + 5 as x from orders) group by x",
    ),
];

/// No identity at all.
const NONE: &[&str] = &[
    "select * from orders where random() < 0.5",
    "select day, count(*) from (select * from orders where random() < 0.5) group by day",
    "select id, random() from orders",
    "select uuid(), count(*) from orders group by 1",
];

#[test]
fn the_same_rows_have_one_fingerprint() {
    let tables = shop();
    runtime().block_on(async {
        let session = session(&tables).await;
        for (what, a, b) in SAME {
            let (a, b) = (session.identity(a).await, session.identity(b).await);
            assert!(a.is_some(), "{what}: no identity");
            assert_eq!(a, b, "{what}");
        }
    });
}

#[test]
fn different_rows_have_two_fingerprints() {
    let tables = shop();
    runtime().block_on(async {
        let session = session(&tables).await;
        for (what, a, b) in DIFFERENT {
            let (a, b) = (session.identity(a).await.expect(what), session.identity(b).await.expect(what));
            assert_ne!(a.fingerprint, b.fingerprint, "{what}");
            assert_ne!(a.template, b.template, "{what}");
        }
    });
}

#[test]
fn literals_change_the_fingerprint_and_not_the_template() {
    let tables = shop();
    runtime().block_on(async {
        let session = session(&tables).await;
        for (what, a, b) in LITERALS {
            let (a, b) = (session.identity(a).await.expect(what), session.identity(b).await.expect(what));
            assert_ne!(a.fingerprint, b.fingerprint, "{what}");
            assert_eq!(a.template, b.template, "{what}");
        }
    });
}

#[test]
fn volatile_subplans_have_none() {
    let tables = shop();
    runtime().block_on(async {
        let session = session(&tables).await;
        for sql in NONE {
            assert_eq!(session.identity(sql).await, None, "{sql}");
        }
        // What lies beneath has one all the same.
        let (logical, physical) = session.fingerprints(NONE[1]).await;
        assert!(logical.nodes.last().unwrap().is_some() && physical.nodes.last().unwrap().is_some());
    });
}
