use super::*;

fn date(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

fn domains() -> Domains {
    let texts = |values: &[&str]| -> Values { values.iter().map(|v| (Scalar::Text((*v).to_owned()), 1)).collect() };
    let numbers = |values: &[i32]| -> Values { values.iter().map(|v| (Scalar::Number(v.to_string()), 1)).collect() };
    let columns = [
        ("n_name", texts(&["FRANCE", "GERMANY", "PERU", "CHINA", "KENYA"])),
        ("p_name", texts(&["green lace navy", "ivory puff red"])),
        ("p_size", numbers(&[1, 2, 3, 4, 5, 6, 7, 8])),
        ("l_discount", numbers(&[0])),
        ("d_year", numbers(&[1900, 2100])),
        ("d_moy", numbers(&[1, 2, 3])),
    ];
    Domains {
        columns: columns.into_iter().map(|(name, values)| (name.to_owned(), values)).collect(),
        first_day: date("1998-01-01"),
        last_day: date("2002-12-31"),
    }
}

/// The query under fifty seeds.
fn redrawn(sql: &str) -> Vec<String> {
    (0..50).map(|seed| redraw(sql, &domains(), seed).unwrap()).collect()
}

fn distinct(sqls: &[String]) -> usize {
    sqls.iter().collect::<BTreeSet<_>>().len()
}

#[test]
fn a_seed_is_repeatable_and_seeds_differ() {
    let sql = "SELECT * FROM nation WHERE n_name = 'FRANCE' AND p_size IN (1, 2, 3)";
    assert_eq!(redrawn(sql), redrawn(sql));
    assert!(distinct(&redrawn(sql)) > 20);
}

#[test]
fn a_value_is_mapped_to_one_other_wherever_it_stands() {
    let sql = "SELECT 1 FROM nation n1, nation n2 WHERE (n1.n_name = 'FRANCE' AND n2.n_name = 'GERMANY') OR (n1.n_name = 'GERMANY' AND n2.n_name = 'FRANCE')";
    for new in redrawn(sql) {
        let names: Vec<&str> = new.split('\'').skip(1).step_by(2).collect();
        assert_eq!((names[0], names[1]), (names[3], names[2]), "{new}");
        assert_ne!(names[0], names[1], "{new}");
    }
}

#[test]
fn lists_keep_their_length_and_stay_distinct() {
    for new in redrawn("SELECT 1 FROM part WHERE p_size IN (1, 2, 3, 4)") {
        let list = new.split(['(', ')']).nth(1).unwrap();
        let values: BTreeSet<&str> = list.split(", ").collect();
        assert_eq!(values.len(), 4, "{new}");
    }
}

#[test]
fn years_dates_and_sequences_move_together_and_stay_where_data_is() {
    let sql = "SELECT 1 FROM date_dim WHERE d_year = 1999 AND d_month_seq BETWEEN 1188 AND 1188 + 11 AND d_date < '1999-06-01' AND d_quarter_name = '1999Q1'";
    let all = redrawn(sql);
    assert!(distinct(&all) >= 4);
    for new in all {
        let year: i64 = new.split("d_year = ").nth(1).unwrap()[..4].parse().unwrap();
        assert!((1998..=2002).contains(&year), "{new}");
        let months = 1188 + (year - 1999) * 12;
        assert!(new.contains(&format!("BETWEEN {months} AND {months} + 11")), "{new}");
        assert!(new.contains(&format!("'{year}Q1'")), "{new}");
        assert!(new.contains(&format!("'{year}-0")) || new.contains(&format!("'{year}-05")), "{new}");
    }
}

#[test]
fn dates_keep_their_distance() {
    let sql = "SELECT 1 FROM orders WHERE o_orderdate >= DATE '1999-01-01' AND o_orderdate < DATE '1999-01-31' + INTERVAL '3' MONTH";
    let all = redrawn(sql);
    assert!(distinct(&all) > 40);
    for new in all {
        let dates: Vec<NaiveDate> = new.split('\'').filter_map(as_date).collect();
        assert_eq!((dates[1] - dates[0]).num_days(), 30, "{new}");
        assert!(dates[0] >= date("1998-01-01") && dates[1] <= date("2002-12-31"), "{new}");
        assert!(new.contains("INTERVAL '3' MONTH"), "{new}");
    }
}

#[test]
fn a_query_wider_than_the_data_stays_where_it_is() {
    let sql = "SELECT 1 FROM date_dim WHERE d_year = 1998 OR d_year = 2002";
    assert!(redrawn(sql).iter().all(|new| new.contains("1998") && new.contains("2002")));
}

#[test]
fn bounds_move_a_little_and_ranges_keep_their_width() {
    for new in redrawn("SELECT 1 FROM lineitem WHERE p_size < 100 AND l_discount BETWEEN 0.50 AND 0.70") {
        let bound: f64 = new.split("p_size < ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!((90.0..=110.0).contains(&bound), "{new}");
        let ends: Vec<f64> = new.split("BETWEEN ").nth(1).unwrap().split(" AND ").map(|v| v.parse().unwrap()).collect();
        assert!((ends[1] - ends[0] - 0.2).abs() < 0.011, "{new}");
    }
}

#[test]
fn patterns_get_words_from_the_same_place() {
    let all = redrawn(
        "SELECT 1 FROM part WHERE p_name LIKE 'green%' AND p_name LIKE '%navy' AND p_name NOT LIKE '%special%requests%'",
    );
    for new in &all {
        assert!(new.contains("LIKE 'green%'") || new.contains("LIKE 'ivory%'"), "{new}");
        assert!(new.contains("LIKE '%navy'") || new.contains("LIKE '%red'"), "{new}");
        assert!(new.contains("'%special%requests%'"), "{new}");
    }
    assert!(distinct(&all) > 1);
}

#[test]
fn what_is_not_compared_with_a_column_of_a_table_stays() {
    let sql = "SELECT substr(p_name, 1, 5), 7 AS n FROM part WHERE rank_ = 1 AND substr(p_name, 2, 3) = 'abc' AND lochierarchy = 0 LIMIT 100";
    let plain = parse(sql).unwrap().to_string();
    assert!(redrawn(sql).iter().all(|new| *new == plain));
}

#[test]
fn columns_to_look_up_are_those_compared() {
    let columns = compared_columns("SELECT a.x FROM t a WHERE a.k = 'v' AND 3 < b AND c IN (1) AND d BETWEEN 1 AND 2 AND e LIKE '%x%' AND f IS NULL").unwrap();
    assert_eq!(columns.into_iter().collect::<Vec<_>>(), ["b", "c", "d", "e", "k"]);
}

#[test]
fn hostile_text_is_an_error_not_a_panic() {
    for sql in ["", "SELECT", "SELECT 1; SELECT 2", "\u{0}", "SELECT '"] {
        assert!(redraw(sql, &domains(), 1).is_err(), "{sql:?}");
    }
}
