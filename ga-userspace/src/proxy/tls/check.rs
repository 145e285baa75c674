//! What is to be said of the files that an intent names, without using them: `ga check`.

use std::{path::Path, time::SystemTime};

use super::{
    certificate::Certificate,
    store::{fits, named, unix_seconds},
};
use crate::{
    model::{Intent, Listener},
    trust::{self, TrustError},
};

/// A certificate that ends within this time is named, in seconds.
const SOON: i64 = 14 * 24 * 3_600;

/// Something to be said of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The instance.
    pub instance: String,
    /// The listener.
    pub listener: String,
    /// The file, as the intent names it.
    pub file: String,
    /// The agent would refuse it. What is not there may be there on another host.
    pub is_error: bool,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: &'static str,
}

/// Reads the files that `intent` names, and says what is wrong with them at `now`. Blocks on files.
pub fn check(intent: &Intent, now: SystemTime) -> Vec<Found> {
    let mut found = Vec::new();
    for (instance, listener) in intent.listeners() {
        let mut say = |(file, is_error, message, help): Said| {
            let (instance, listener) = (instance.id.to_string(), listener.name.to_string());
            found.push(Found { instance, listener, file, is_error, message, help });
        };
        certificates(listener, now).into_iter().for_each(&mut say);
        authorities(listener).into_iter().for_each(&mut say);
    }
    found
}

type Said = (String, bool, String, &'static str);

fn certificates(listener: &Listener, now: SystemTime) -> Vec<Said> {
    let Some(tls) = &listener.tls else { return Vec::new() };
    let mut said = Vec::new();
    for (domain, files) in named(tls) {
        let read = Certificate::read(files).and_then(|certificate| {
            fits(files, &certificate, Some(tls.policy))?;
            Ok(certificate)
        });
        let mut say = |is_error, message, help| said.push((files.cert.clone(), is_error, message, help));
        let certificate = match read {
            Ok(certificate) => certificate,
            Err(error) if error.is_absence() => {
                say(false, error.to_string(), "the agent reads it where it runs, and does not start without it");
                continue;
            }
            Err(error) => {
                say(
                    true,
                    error.to_string(),
                    "PEM: the server's certificate, those that issued it, and the key, in one file or two",
                );
                continue;
            }
        };
        let (now, file) = (unix_seconds(now), &files.cert);
        if certificate.not_after < now {
            say(false, format!("{file}: the certificate has expired"), "clients will not believe it; renew it");
        } else if certificate.not_after < now + SOON {
            let days = (certificate.not_after - now) / (24 * 3_600);
            say(
                false,
                format!("{file}: the certificate expires within {} days", days + 1),
                "renew it; it is read again when it changes",
            );
        } else if certificate.not_before > now {
            say(false, format!("{file}: the certificate is not valid yet"), "clients will not believe it before");
        }
        let probe = domain.replacen('*', "any", 1);
        if domain != "default" && !certificate.names.covers(&probe) {
            let first = certificate.names.first().unwrap_or_else(|| "nobody".to_owned());
            let message = format!("{file}: the certificate is not good for {domain}, but for {first}");
            say(false, message, "clients that ask for the domain will not believe it");
        }
    }
    said
}

fn authorities(listener: &Listener) -> Vec<Said> {
    let mut files: Vec<&String> = Vec::new();
    let tls = listener.groups.iter().filter_map(|group| group.backend.tls.as_ref());
    files.extend(tls.filter(|tls| tls.verify).filter_map(|tls| tls.ca.as_ref()));
    files.sort_unstable();
    files.dedup();
    let wrong = |file: &String| {
        let error = trust::client(true, Some(Path::new(file)), &[]).err()?;
        let is_error = !matches!(error, TrustError::Read { .. });
        Some((file.clone(), is_error, error.to_string(), "PEM: the certificates that vouch for endpoints"))
    };
    files.into_iter().filter_map(wrong).collect()
}
