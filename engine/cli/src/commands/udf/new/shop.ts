import { Maybe } from "./sdk/assembly/index";

/** In capitals, with an exclamation mark. */
@scalar export function shout(text: string): string { return text.toUpperCase() + "!"; }

/** The average of values by weight. */
@aggregate export class wavg {
  sum: f64 = 0;
  weight: f64 = 0;

  update(value: f64, weight: f64): void { this.merge(value * weight, weight); }

  merge(sum: f64, weight: f64): void {
    this.sum += sum;
    this.weight += weight;
  }

  evaluate(): Maybe<f64> {
    return this.weight == 0 ? Maybe.null<f64>() : new Maybe<f64>(this.sum / this.weight);
  }
}
