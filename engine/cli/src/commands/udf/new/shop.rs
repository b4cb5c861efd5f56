use sparklet_udf::{aggregate, scalar, Aggregate, Result};

scalar! {
    /// In capitals, with an exclamation mark.
    fn shout(text: &str) -> String {
        format!("{}!", text.to_uppercase())
    }
}

#[derive(Default)]
struct Wavg {
    sum: f64,
    weight: f64,
}

impl<'a> Aggregate<'a> for Wavg {
    type Args = (f64, f64);
    type State = (f64, f64);
    type Output = Option<f64>;

    fn update(&mut self, (value, weight): (f64, f64)) -> Result {
        self.merge((value * weight, weight))
    }

    fn merge(&mut self, (sum, weight): (f64, f64)) -> Result {
        self.sum += sum;
        self.weight += weight;
        Ok(())
    }

    fn state(self) -> (f64, f64) {
        (self.sum, self.weight)
    }

    fn evaluate(self) -> Option<f64> {
        (self.weight != 0.0).then(|| self.sum / self.weight)
    }
}

aggregate! {
    /// The average of values by weight.
    wavg = Wavg
}
