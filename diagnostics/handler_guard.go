package diagnostics

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// refuse returns why r is refused, and the status for it, or "". It does not check the token, which the page itself does not need.
func (h *Handler) refuse(r *http.Request) (why string, status int) {
	switch {
	case isUnix(r): // who may use it is up to its folder
		return "", 0
	case h.opts.Token == "" && !isLocal(r.RemoteAddr):
		return "only requests from this machine are answered: set a token to answer others", http.StatusForbidden
	case !h.isKnown(r.Host):
		return "the page is not known by this name: ask for localhost or an address, or add the name to HandlerOptions.Hosts",
			http.StatusMisdirectedRequest
	case isForeign(r.Header.Get("Sec-Fetch-Site")) && (r.URL.Path != "/" || r.Header.Get("Sec-Fetch-Mode") != "navigate"):
		return "pages of other sites are not answered", http.StatusForbidden
	}
	return "", 0
}

// isForeign reports whether site, of the header Sec-Fetch-Site, says that the request is from a page of another origin.
func isForeign(site string) bool { return site == "cross-site" || site == "same-site" }

// isUnix reports whether r has come over a unix socket.
func isUnix(r *http.Request) bool {
	at, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && at.Network() == "unix"
}

// isLocal reports whether remote, as in http.Request.RemoteAddr, is a loopback address.
func isLocal(remote string) bool {
	at, err := netip.ParseAddrPort(remote)
	return err == nil && at.Addr().Unmap().IsLoopback()
}

// isKnown reports whether a browser may know this server as host. An address is never the name of another server. Without a token it must be
// of loopback, because the request is.
func (h *Handler) isKnown(host string) bool {
	name := host
	if n, _, err := net.SplitHostPort(host); err == nil {
		name = n
	}
	name = strings.ToLower(strings.TrimSuffix(strings.Trim(name, "[]"), "."))
	if at, err := netip.ParseAddr(name); err == nil {
		return h.opts.Token != "" || at.Unmap().IsLoopback()
	}
	return name == "localhost" || strings.HasSuffix(name, ".localhost") || h.hosts[name]
}
