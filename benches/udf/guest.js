// The function of `cargo bench --bench udf` in JavaScript.
import { scalar } from "sparklet-udf";

scalar("javascript_margin", ["Float64", "Float64"], "Float64", (a, b) => a * b + 1);
