//! The variables that OpenTelemetry names.

use std::str::FromStr;

use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use super::BadConfig;
use crate::trace::{
    self, Sampler, Tracer,
    otlp::{Endpoint, Exporter},
};

/// These are variables of the environment first, those that OpenTelemetry names; help does not list their flags. An empty
/// one counts as none.
#[derive(Clone, Debug, Args)]
pub(super) struct Variables {
    /// The base of a collector's endpoints: spans go to /v1/traces below it, as JSON.
    #[arg(long, env = ENDPOINT, hide = true)]
    otlp_endpoint: Option<String>,

    /// The endpoint for spans, if it is another.
    #[arg(long, env = TRACES_ENDPOINT, hide = true)]
    otlp_traces_endpoint: Option<String>,

    /// Headers of each request to it: name=value, comma-separated, percent-encoded.
    #[arg(long, env = HEADERS, hide = true, hide_env_values = true)]
    otlp_headers: Option<String>,

    /// What this process is called there. Default: the program's name.
    #[arg(long, env = "OTEL_SERVICE_NAME", hide = true)]
    otel_service_name: Option<String>,

    /// What else is said of this process: name=value, comma-separated, percent-encoded.
    #[arg(long, env = RESOURCE, hide = true)]
    otel_resource_attributes: Option<String>,

    /// Which traces are recorded: always_on, always_off or traceidratio, or one of these after parentbased_ for requests
    /// that do not say it themselves.
    #[arg(long, env = SAMPLER, hide = true)]
    otel_traces_sampler: Option<String>,

    /// The part of the traces that traceidratio records: 0 to 1.
    #[arg(long, env = SAMPLER_ARG, hide = true)]
    otel_traces_sampler_arg: Option<String>,
}

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const RESOURCE: &str = "OTEL_RESOURCE_ATTRIBUTES";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";

impl Variables {
    /// The tracer, and what exports its spans; `None` without an endpoint.
    ///
    /// # Errors
    ///
    /// [`BadConfig`] that names the variable.
    pub(super) fn open(
        &self,
        program: &'static str,
        version: &'static str,
    ) -> Result<Option<(Tracer, Exporter)>, BadConfig> {
        let own = read(TRACES_ENDPOINT, self.otlp_traces_endpoint.as_deref())?;
        let base: Option<Endpoint> = read(ENDPOINT, self.otlp_endpoint.as_deref())?;
        let Some(endpoint) = own.or(base.map(Endpoint::of_traces)) else { return Ok(None) };
        let name = set(self.otel_service_name.as_deref()).unwrap_or(program);
        let mut resource = vec![
            ("service.name".to_owned(), name.to_owned()),
            ("service.version".to_owned(), version.to_owned()),
        ];
        for (name, value) in pairs(RESOURCE, self.otel_resource_attributes.as_deref())? {
            // What is said of the name above counts more.
            if name != "service.name" || set(self.otel_service_name.as_deref()).is_none() {
                resource.retain(|(known, _)| *known != name);
                resource.push((name, value));
            }
        }
        let (tracer, spans) = trace::channel(self.sampler()?);
        Ok(Some((tracer, Exporter::new(spans, endpoint, self.headers()?, resource))))
    }

    fn headers(&self) -> Result<HeaderMap, BadConfig> {
        let pairs = pairs(HEADERS, self.otlp_headers.as_deref())?;
        let header = |(name, value): (String, String)| {
            let header = (name.parse::<HeaderName>().ok(), HeaderValue::try_from(&value).ok());
            let (Some(name), Some(value)) = header else {
                return Err(BadConfig::new(HEADERS, &name, "expected the name and value of a header"));
            };
            Ok((name, value))
        };
        pairs.into_iter().map(header).collect()
    }

    fn sampler(&self) -> Result<Sampler, BadConfig> {
        let name = set(self.otel_traces_sampler.as_deref()).unwrap_or("parentbased_always_on");
        let (by_parent, rest) = match name.strip_prefix("parentbased_") {
            Some(rest) => (true, rest),
            None => (false, name),
        };
        let ratio = match rest {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => self.ratio()?,
            _ => {
                let expected = "expected always_on, always_off or traceidratio, alone or after parentbased_";
                return Err(BadConfig::new(SAMPLER, name, expected));
            }
        };
        Ok(Sampler { by_parent, ratio })
    }

    fn ratio(&self) -> Result<f64, BadConfig> {
        let Some(text) = set(self.otel_traces_sampler_arg.as_deref()) else { return Ok(1.0) };
        let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        ratio.ok_or_else(|| BadConfig::new(SAMPLER_ARG, text, "expected a number from 0 to 1"))
    }
}

fn set(value: Option<&str>) -> Option<&str> {
    value.map(str::trim).filter(|value| !value.is_empty())
}

fn read<T: FromStr<Err: ToString>>(name: &str, value: Option<&str>) -> Result<Option<T>, BadConfig> {
    let Some(text) = set(value) else { return Ok(None) };
    text.parse().map(Some).map_err(|error: T::Err| BadConfig::new(name, text, error.to_string()))
}

fn pairs(name: &str, value: Option<&str>) -> Result<Vec<(String, String)>, BadConfig> {
    let parts = set(value).unwrap_or_default().split(',').map(str::trim).filter(|part| !part.is_empty());
    let decode = |text: &str| percent_decode_str(text.trim()).decode_utf8_lossy().into_owned();
    let pair = |part: &str| match part.split_once('=') {
        Some((name, value)) => Ok((decode(name), decode(value))),
        None => Err(BadConfig::new(name, part, "expected name=value, comma-separated")),
    };
    parts.map(pair).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        variables: Variables,
    }

    fn open(arguments: &[&str]) -> Result<Option<(Tracer, Exporter)>, BadConfig> {
        let arguments = ["program"].iter().chain(arguments);
        Program::try_parse_from(arguments).unwrap().variables.open("program", "1")
    }

    #[test]
    fn nothing_is_traced_without_an_endpoint() {
        assert!(open(&[]).unwrap().is_none());
        assert!(open(&["--otlp-endpoint="]).unwrap().is_none());
    }

    #[test]
    fn the_exporter_is_what_the_variables_say() {
        let (tracer, exporter) = open(&[
            "--otlp-endpoint=http://collector:4318/",
            "--otlp-headers=authorization=Bearer%20x, x-tenant=a",
            "--otel-resource-attributes=service.name=other,zone=a%2Cb",
            "--otel-service-name=chat",
            "--otel-traces-sampler=traceidratio",
            "--otel-traces-sampler-arg=0.25",
        ])
        .unwrap()
        .unwrap();
        let (told, tracer) = (format!("{exporter:?}"), format!("{tracer:?}"));
        for part in ["collector:4318", "/v1/traces", "Bearer x", "x-tenant", "\"chat\"", "a,b", "\"1\""] {
            assert!(told.contains(part), "{part} is not in {told}");
        }
        assert!(
            !told.contains("other") && tracer.contains("by_parent: false, ratio: 0.25"),
            "{told} {tracer}"
        );
    }

    #[test]
    fn a_bad_value_is_refused_by_its_variable() {
        let base = "--otlp-endpoint=http://collector:4318";
        for (argument, variable) in [
            ("--otlp-endpoint=https://collector:4318", ENDPOINT),
            ("--otlp-traces-endpoint=collector", TRACES_ENDPOINT),
            ("--otlp-headers=authorization", HEADERS),
            ("--otlp-headers=a b=c", HEADERS),
            ("--otel-resource-attributes=zone", RESOURCE),
            ("--otel-traces-sampler=sometimes", SAMPLER),
        ] {
            let arguments = if argument.starts_with("--otlp-endpoint") { &[][..] } else { &[base][..] };
            let error = open(&[arguments, &[argument]].concat()).unwrap_err();
            assert!(error.to_string().starts_with(variable), "{error}");
        }
    }
}
