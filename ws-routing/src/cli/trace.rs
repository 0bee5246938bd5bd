//! Where traces go.

use std::pin::Pin;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::BadConfig;
use crate::trace::Tracer;

/// Where traces go, by the variables that OpenTelemetry names. A program that is built without feature `otel` traces
/// nothing, and knows none of them.
#[derive(Clone, Debug, Args)]
pub struct TraceArgs {
    #[cfg(feature = "otel")]
    #[command(flatten)]
    variables: super::otel::Variables,
}

/// Sends spans to a collector as long as it is polled. It ends with the token, when what is left has been sent.
pub type Export = Pin<Box<dyn Future<Output = ()> + Send>>;

impl TraceArgs {
    /// The tracer, which is off without an endpoint, and what exports its spans until `stop`.
    ///
    /// # Errors
    ///
    /// [`BadConfig`] that names the variable.
    pub fn open(
        &self,
        program: &'static str,
        version: &'static str,
        stop: CancellationToken,
    ) -> Result<(Tracer, Export), BadConfig> {
        #[cfg(feature = "otel")]
        if let Some((tracer, exporter)) = self.variables.open(program, version)? {
            return Ok((tracer, Box::pin(exporter.run(stop))));
        }
        let _ = (program, version, stop);
        Ok((Tracer::default(), Box::pin(async {})))
    }
}
