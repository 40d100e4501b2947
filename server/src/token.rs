//! `rialto token`: makes an access token with the signing key of the data directory.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use rialto_broker::auth::NewToken;

use crate::{cli::TokenArgs, config::Config, keys};

/// The token. The key is made when there is none yet, so that a token can be had before the first start.
///
/// # Errors
/// When the key cannot be read or made, a broker with this configuration would refuse its tokens, or the user's name is
/// empty or too long.
pub fn make(args: &TokenArgs, config: &Config) -> anyhow::Result<String> {
    anyhow::ensure!(
        rialto_broker::auth::claims::is_subject(&args.user),
        "--user {:?}: a user is a name of 1 to {} printable bytes, or a UUID that is not all zero",
        args.user,
        rialto_broker::auth::claims::SUBJECT_BYTES_MAX
    );
    let key = keys::open(&config.data_dir, config.auth.keys.as_deref())?;
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock stands before 1970")?;
    let token = NewToken {
        policy: &config.auth.policy,
        subject: &args.user,
        issued_ms: u64::try_from(since_1970.as_millis())
            .context("the clock stands far in the future")?,
        life_s: args.life,
        service: args.service,
    };
    Ok(key.sign(&token)?)
}
