//! Cost of fingerprints beside that of planning, over a join of eight tables with a subquery, an anti join and two aggregates.
#![expect(clippy::expect_used, reason = "a bench that cannot set itself up has nothing to measure")]

use std::hint::black_box;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use criterion::{Criterion, criterion_group, criterion_main};
use datafusion::datasource::MemTable;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{SessionConfig, SessionContext};
use sparklet_optimizer::{SourceId, SourceMap, fingerprint_logical, fingerprint_physical, reductions};

const QUERY: &str = "
    with paid as (
        select o.id, o.shop, o.buyer, o.day, sum(l.price * (1 - l.rebate)) as total, count(distinct l.part) as parts
        from orders o join lines l on l.order_id = o.id
        where o.day >= date '2024-01-01' and o.day < date '2025-01-01' and l.state in ('sent', 'paid', 'kept', 'back', 'lost')
        group by o.id, o.shop, o.buyer, o.day
    )
    select c.name as country, s.name as shop, case when p.total > 1000 then 'large' else 'small' end as size,
        sum(p.total) as total, avg(p.parts) as parts, count(*) as n
    from paid p
        join shops s on p.shop = s.id
        join cities t on s.city = t.id
        join countries c on t.country = c.id
        join people b on p.buyer = b.id
        join cities h on b.city = h.id
        left join returns r on r.order_id = p.id and r.day > p.day
    where c.id = h.country and b.age between 20 and 60 and r.order_id is null
        and not exists (select 1 from blocked k where k.person = b.id)
        and p.total > (select avg(l.price) from lines l where l.state = 'paid')
    group by c.name, s.name, case when p.total > 1000 then 'large' else 'small' end
    having count(*) > 10
    order by total desc
    limit 100";

fn session() -> (SessionContext, SourceMap) {
    use DataType::{Date32, Decimal128, Int64, Utf8};
    let money = Decimal128(12, 2);
    let tables: [(&str, &[(&str, DataType)]); 9] = [
        ("orders", &[("id", Int64), ("shop", Int64), ("buyer", Int64), ("day", Date32)]),
        (
            "lines",
            &[("order_id", Int64), ("part", Int64), ("price", money.clone()), ("rebate", money), ("state", Utf8)],
        ),
        ("shops", &[("id", Int64), ("name", Utf8), ("city", Int64)]),
        ("cities", &[("id", Int64), ("country", Int64)]),
        ("countries", &[("id", Int64), ("name", Utf8)]),
        ("people", &[("id", Int64), ("age", Int64), ("city", Int64)]),
        ("returns", &[("order_id", Int64), ("day", Date32)]),
        ("blocked", &[("person", Int64)]),
        ("spare", &[("id", Int64)]),
    ];
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(4));
    let mut sources = SourceMap::default();
    for (name, columns) in tables {
        let fields: Vec<Field> = columns.iter().map(|(name, ty)| Field::new(*name, ty.clone(), true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let table = MemTable::try_new(Arc::clone(&schema), vec![vec![]]).expect("an empty table");
        context.register_table(name, Arc::new(table)).expect("a fresh name");
        let id = SourceId::Table { pipeline: "bench".into(), name: name.into() };
        sources.add_table(name, id.clone());
        // Projections keep the fields of a table, which no two tables share.
        let fields = schema.fields().clone();
        sources.add_recogniser(move |scan: &dyn ExecutionPlan| {
            let first = scan.children().is_empty().then(|| scan.schema())?;
            let own = first.fields().iter().all(|f| fields.iter().any(|own| Arc::ptr_eq(own, f)));
            (own && !first.fields().is_empty()).then(|| id.clone())
        });
    }
    (context, sources)
}

fn fingerprints(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (context, sources) = session();
    let state = context.state();
    let (plan, logical, physical) = runtime.block_on(async {
        let plan = state.create_logical_plan(QUERY).await.expect("valid SQL");
        let logical = state.optimize(&plan).expect("optimised");
        let physical = state.query_planner().create_physical_plan(&logical, &state).await.expect("planned");
        (plan, logical, physical)
    });
    let named = fingerprint_physical(&physical, &sources);
    let known = named.nodes.iter().flatten().count();
    assert!(
        known * 2 > named.nodes.len() && named.nodes[0].is_some(),
        "{known} of {} nodes are known",
        named.nodes.len()
    );
    assert_eq!(fingerprint_logical(&logical, &sources).nodes[0], named.nodes[0]);

    let mut group = criterion.benchmark_group("fingerprint");
    group.bench_function("logical", |b| b.iter(|| fingerprint_logical(black_box(&logical), &sources)));
    group.bench_function("physical", |b| b.iter(|| fingerprint_physical(black_box(&physical), &sources)));
    group.bench_function("reductions", |b| b.iter(|| reductions(black_box(&physical))));
    group.bench_function("optimize, for comparison", |b| b.iter(|| state.optimize(black_box(&plan))));
    group.finish();
}

criterion_group!(benches, fingerprints);
criterion_main!(benches);
