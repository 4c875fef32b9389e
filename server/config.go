package server

import (
	"net/netip"

	"hearth/state/matrix"
)

// Config holds the settings of a server. Each field is declared once, in
// settings below: its flag, its HEARTH_… variable, its line in hearth.toml and
// its help come from there. A zero field means the default.
type Config struct {
	Data       string            // directory of everything that is kept
	ServerName matrix.ServerName // the part of user IDs after the colon, for ever

	Listen         []string // plain HTTP addresses; unix:/path too
	ListenTLS      []string // HTTPS addresses
	TLSCert        string   // PEM file with the certificate and its chain
	TLSKey         string   // PEM file with the certificate's key
	TrustedProxies []netip.Prefix

	ACME         Switch // certificates are got and renewed by the server itself
	ACMEEmail    string
	ACMECA       string // directory URL
	ACMECARoot   string // PEM file
	ACMEHTTPPort int
	ACMETLSPort  int

	Federation           Switch
	FederationCA         string // PEM file
	TrustedKeyServers    []matrix.ServerName
	AllowPrivateNetworks Switch

	Registration             Registration
	RegistrationSharedSecret Secret
	PasswordCost             int // bcrypt's: each step doubles the work

	Presence    Presence
	URLPreviews Switch
	// DefaultRoomVersion is that of rooms whose creator asks for none.
	DefaultRoomVersion string
	TURNURIs           []string
	TURNSecret         Secret
	LegacyMedia        Switch
	Appservices        string // directory with the registrations
	RateLimits         Switch

	Memory    Bytes // ceiling for the whole process
	LogLevel  LogLevel
	LogFormat LogFormat
}

// settings declares every setting, bound to the fields of c. The order is that of
// the help.
func (c *Config) settings() []setting {
	return []setting{
		{group: "The server", name: "data", arg: "DIR", value: text(&c.Data, parsePath), initial: "./hearth-data",
			help: "where everything is kept; a data directory belongs to one server name for ever"},
		{name: "server-name", arg: "NAME", value: text(&c.ServerName, matrix.ParseServerName), initial: "localhost",
			help: "the part of user IDs after the colon, such as example.org"},
		{name: "memory", arg: "SIZE", value: number(&c.Memory, parseMemory), computed: "the cgroup's limit, else a quarter of RAM between 64MiB and 256MiB",
			help: "the most memory the whole process may use, such as 96MiB"},
		{name: "log-level", arg: "LEVEL", value: oneOf(&c.LogLevel, LogDebug, LogInfo, LogWarn, LogError), initial: "info",
			help: "what is logged: debug shows every request"},
		{name: "log-format", arg: "FORMAT", value: oneOf(&c.LogFormat, LogText, LogJSON), initial: "text",
			help: "how it is logged"},

		{group: "Listening", name: "listen", arg: "ADDR,…", value: list(&c.Listen, parseListen), initial: "127.0.0.1:8008",
			help: "plain HTTP, to try it or behind a proxy; unix:/path for a socket, off for none"},
		{name: "listen-tls", arg: "ADDR,…", value: list(&c.ListenTLS, parseListen), initial: "off",
			help: "HTTPS, with --tls-cert and --tls-key; other servers look for port 8448, clients for 443"},
		{name: "tls-cert", arg: "FILE", value: text(&c.TLSCert, parsePath),
			help: "certificate with its chain (PEM), read again when the file changes"},
		{name: "tls-key", arg: "FILE", value: text(&c.TLSKey, parsePath),
			help: "the certificate's key (PEM)"},
		{name: "trusted-proxies", arg: "CIDR,…", value: list(&c.TrustedProxies, parsePrefix),
			help: "proxies whose X-Forwarded-For is believed"},

		{group: "Certificates from a certificate authority", name: "acme", arg: "on|off", value: onOff(&c.ACME), initial: "off",
			later: "certificates by ACME come with a later release: give --tls-cert and --tls-key",
			help:  "get and renew the certificate"},
		{name: "acme-email", arg: "EMAIL", value: text(&c.ACMEEmail, parseEmail),
			help: "where the authority may write to"},
		{name: "acme-ca", arg: "URL", value: text(&c.ACMECA, parseHTTPS), initial: "https://acme-v02.api.letsencrypt.org/directory",
			help: "the authority's directory"},
		{name: "acme-ca-root", arg: "FILE", value: text(&c.ACMECARoot, parsePath),
			help: "the authority's own root certificate (PEM), if the system does not know it"},
		{name: "acme-http-port", arg: "N", value: number(&c.ACMEHTTPPort, parsePort), initial: "80",
			help: "port for the challenge by HTTP"},
		{name: "acme-tls-port", arg: "N", value: number(&c.ACMETLSPort, parsePort), initial: "443",
			help: "port for the challenge by TLS"},

		{group: "Other servers", name: "federation", arg: "on|off", value: onOff(&c.Federation), initial: "on",
			help: "whether rooms are shared with other servers; they reach this one over HTTPS"},
		{name: "federation-ca", arg: "FILE", value: text(&c.FederationCA, parsePath),
			help: "further root certificates (PEM) for requests to other servers"},
		{name: "trusted-key-servers", arg: "NAME,…", value: list(&c.TrustedKeyServers, matrix.ParseServerName),
			help: "servers that are asked for the keys of servers that do not answer"},
		{name: "allow-private-networks", bare: true, value: onOff(&c.AllowPrivateNetworks), initial: "off",
			help: "outgoing requests may reach loopback and private addresses"},

		{group: "Accounts", name: "registration", arg: "closed|token|open", value: oneOf(&c.Registration, RegistrationClosed, RegistrationToken, RegistrationOpen), initial: "closed",
			help: "who may make an account with a client: nobody, who has a token, everybody"},
		{name: "registration-shared-secret", arg: "SECRET", value: text(&c.RegistrationSharedSecret, parseSecret),
			help: "lets tools that know the secret make accounts at /_synapse/admin/v1/register"},
		{name: "password-cost", arg: "N", value: number(&c.PasswordCost, parseCost), initial: "10",
			help: "work factor of the password hash, 4 to 16; each step doubles the work"},

		{group: "What users get", name: "presence", arg: "on|local|off", value: oneOf(&c.Presence, PresenceOn, PresenceLocal, PresenceOff), initial: "on",
			help: "whether users see each other online: of all servers, of this one, not at all"},
		{name: "default-room-version", arg: "VERSION", value: text(&c.DefaultRoomVersion, parseRoomVersion), initial: matrix.DefaultVersion,
			help: "the version of new rooms, where their creator asks for none; an older one lets in older servers"},
		{name: "url-previews", arg: "on|off", value: onOff(&c.URLPreviews), initial: "off",
			help: "fetch the pages that messages link to, for previews"},
		{name: "turn-uris", arg: "URI,…", value: list(&c.TURNURIs, parseTURN),
			help: "the TURN server for calls, such as turn:turn.example.org?transport=udp; with --turn-secret"},
		{name: "turn-secret", arg: "SECRET", value: text(&c.TURNSecret, parseSecret),
			help: "the secret that the TURN server makes out credentials by (static-auth-secret)"},
		{name: "legacy-media", arg: "on|off", value: onOff(&c.LegacyMedia), initial: "off",
			help: "serve media without a token at the old endpoints too"},
		{name: "appservices", arg: "DIR", value: text(&c.Appservices, parsePath),
			warn: "application services come with a later release: none are started",
			help: "directory with the registrations (YAML) of application services"},
		{name: "rate-limits", arg: "on|off", value: onOff(&c.RateLimits), initial: "on",
			help: "refuse a client's requests when they come too fast"},
	}
}
