"""Headers that keep a browser from running, loading or showing anything that is not this server's.

Rule of this module: pages differ only in their content security policy.
"""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'{images}; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
"""Scripts, styles, images and data come from this server only."""

_SHARED = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}

FOR_PAGE = {
    # No text can become HTML or code.
    "content-security-policy": f"{_POLICY.format(images='')}; require-trusted-types-for 'script'; trusted-types 'none'",
    **_SHARED,
    "cross-origin-opener-policy": "same-origin",
}
"""Headers of the page to try models."""

FOR_SWAGGER_UI = {"content-security-policy": _POLICY.format(images=" data:"), **_SHARED}
"""Headers of Swagger UI, which has images in its style sheet and makes HTML of text."""
