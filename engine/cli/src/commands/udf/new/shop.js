import { aggregate, scalar } from "sparklet-udf";

// In capitals, with an exclamation mark.
scalar("shout", ["Utf8"], "Utf8", text => text.toUpperCase() + "!");

// The average of values by weight.
class Wavg {
  sum = 0;
  weight = 0;
  update(value, weight) { this.merge(value * weight, weight); }
  merge(sum, weight) { this.sum += sum; this.weight += weight; }
  state() { return [this.sum, this.weight]; }
  evaluate() { return this.weight === 0 ? null : this.sum / this.weight; }
}

aggregate("wavg", ["Float64", "Float64"], ["Float64", "Float64"], "Float64", Wavg);
