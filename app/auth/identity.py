"""Bearer tokens of an identity provider: JWTs (RFC 7519), checked as RFC 8725 and RFC 9068 advise."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt

from app.auth.access import InvalidTokenError, Principal
from app.auth.grants import Grant, GrantError, Grants
from app.auth.keys import ALGORITHMS, Keys, KeysError, KeysUnavailableError, read_keys
from app.problems import Problem
from app.settings import ProviderSettings, SettingError

LEEWAY: Final = 30
"""Seconds by which the provider's clock may differ from ours."""

LONGEST_TOKEN: Final = 8 * 1024
"""Characters of a token at the most."""

_LONGEST_USER = 254
# A token of another purpose says so (RFC 8725, section 3.11): "logout+jwt", say, or "secevent+jwt".
_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})


@dataclass(frozen=True, slots=True)
class Provider:
    """An identity provider whose tokens are taken.

    :ivar settings: which one, and how its tokens are read
    :ivar keys: its public keys
    """

    settings: ProviderSettings
    keys: Keys

    @classmethod
    def of(cls, settings: ProviderSettings) -> "Provider":
        """The provider that is set.

        :raises SettingError: its keys are said to be in a file which holds none
        """
        try:
            return cls(settings, read_keys(settings.jwks))
        except KeysError as error:
            right = "the path of a JWK Set or its http(s) URL"
            raise SettingError(f"CHRONONAUT_JWT_JWKS must be {right}; {error}") from None

    def principal(self, token: str) -> Principal:
        """Whom a token stands for, and what they may do.

        :raises InvalidTokenError: it is none of the provider for us, or not valid now
        :raises Problem: 503: the provider's keys cannot be had
        """
        claims = self._verified(token)
        return Principal(self._user(claims), self._grants(claims))

    def _verified(self, token: str) -> Mapping[str, Any]:
        if len(token) > LONGEST_TOKEN:
            raise InvalidTokenError(f"the token has more than {LONGEST_TOKEN} characters")
        try:
            claims: Mapping[str, Any] = jwt.decode(
                token,
                self._key(jwt.get_unverified_header(token)),
                algorithms=ALGORITHMS,
                audience=self.settings.audience,
                issuer=self.settings.issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud"], "enforce_minimum_key_length": True},
            )
        except jwt.PyJWTError as error:
            raise InvalidTokenError(_reason(error)) from None
        return claims

    def _key(self, header: Mapping[str, Any]) -> jwt.PyJWK:
        if str(header.get("typ", "JWT")).lower() not in _TYPES:
            raise InvalidTokenError("the token is of another type than JWT or at+jwt")
        if header.get("alg") not in ALGORITHMS:
            raise InvalidTokenError(f"the token is not signed with one of {', '.join(ALGORITHMS)}")
        if "kid" not in header:
            raise InvalidTokenError("the token does not name its key by kid")
        try:
            key = self.keys.find(header["kid"])
        except KeysUnavailableError as error:
            headers = {"Retry-After": str(error.retry_after)}
            raise Problem("unavailable", f"{error}; try again", headers=headers) from None
        if key is None:
            raise InvalidTokenError("the identity provider has no key of the token's kid")
        return key

    def _user(self, claims: Mapping[str, Any]) -> str:
        # Of another than the provider has verified, anybody can say that it is theirs.
        is_verified = claims.get("email_verified") in (True, "true")
        by_default = "email" if "email" in claims and is_verified else "sub"
        name = self.settings.user_claim or by_default
        user = claims.get(name)
        if not (isinstance(user, str) and user.isprintable() and 0 < len(user) <= _LONGEST_USER):
            raise InvalidTokenError(
                f"the token does not name its user by {name}, in {_LONGEST_USER} characters at most"
            )
        return user

    def _grants(self, claims: Mapping[str, Any]) -> Grants:
        listed = claims.get(self.settings.scope_claim, [])
        words = listed.split() if isinstance(listed, str) else listed if isinstance(listed, list) else []
        grants = set()
        for word in words:
            # Scopes of other services stand there as well.
            try:
                grants.add(Grant.parse(str(word)))
            except GrantError:
                continue
        return Grants(frozenset(grants))


def _reason(error: jwt.PyJWTError) -> str:
    """What is wrong with a token, in words of our own: what PyJWT says may quote the token."""
    if isinstance(error, jwt.MissingRequiredClaimError):
        return f"the token lacks the claim {error.claim}"
    return next((reason for kind, reason in _REASONS.items() if isinstance(error, kind)), "the token is no JWT")


_REASONS: Mapping[type[jwt.PyJWTError], str] = {
    jwt.ExpiredSignatureError: "the token has expired",
    jwt.ImmatureSignatureError: "the token is not valid yet",
    jwt.InvalidAudienceError: "the token is for another audience",
    jwt.InvalidIssuerError: "the token is of another issuer",
    jwt.InvalidSignatureError: "the signature of the token is wrong",
    jwt.InvalidAlgorithmError: "the token is signed with another algorithm than its key is for",
    jwt.InvalidKeyError: "the key of the token is too weak",
}
