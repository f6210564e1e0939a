package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/BurntSushi/toml"
	"github.com/alecthomas/kong"
)

// config is the configuration file: default values of flags.
type config struct {
	Relay oneOrMore `toml:"relay"`
	DHT   oneOrMore `toml:"dht"`
	Key   string    `toml:"key"`
}

// oneOrMore is a string in a configuration file, or a list of strings.
type oneOrMore []string

// UnmarshalTOML implements toml.Unmarshaler.
func (s *oneOrMore) UnmarshalTOML(v any) error {
	all, isList := v.([]any)
	if !isList {
		all = []any{v}
	}
	for _, one := range all {
		text, ok := one.(string)
		if !ok {
			return errors.New("want a string or a list of strings")
		}
		*s = append(*s, text)
	}
	return nil
}

const (
	configName = "config.toml"
	maxConfig  = 1 << 20
	relayEnv   = "PEERLANE_RELAY"
)

// configPath returns the path of the configuration file.
func configPath() (string, error) {
	dir, err := os.UserConfigDir()
	return filepath.Join(dir, "peerlane", configName), err
}

// readConfig reads the configuration file. It returns an empty config if there is no file.
func readConfig() (c config, err error) {
	path, err := configPath()
	if err != nil {
		return c, nil // no home directory
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return c, nil
	}
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxConfig) {
		err = fmt.Errorf("%s: not a configuration file", path)
	}
	if err != nil {
		return c, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return c, err
	}
	if c, err = parseConfig(string(text)); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	if c.Key != "" && !filepath.IsAbs(c.Key) {
		c.Key = filepath.Join(filepath.Dir(path), c.Key)
	}
	return c, nil
}

// parseConfig returns the values of a configuration file.
func parseConfig(text string) (c config, err error) {
	read, err := toml.Decode(text, &c)
	if err != nil {
		return c, err
	}
	if unknown := read.Undecoded(); len(unknown) > 0 {
		return c, fmt.Errorf("unknown key %q, want relay, dht or key", unknown[0].String())
	}
	return c, c.validate()
}

// validate returns an error that names a key whose value cannot be used.
func (c *config) validate() error {
	for _, one := range c.Relay {
		if _, err := parseReachable(one); err != nil {
			return fmt.Errorf("relay: %w", err)
		}
	}
	if len(c.DHT) == 1 && (c.DHT[0] == dhtPublic || c.DHT[0] == dhtNone) {
		return nil
	}
	for _, one := range c.DHT {
		if _, err := parseReachable(one); err != nil {
			return fmt.Errorf("dht: want %q, %q or addresses: %w", dhtPublic, dhtNone, err)
		}
	}
	return nil
}

// configResolver sets flags from the configuration file. It reads the file only if the command has such a flag, and ignores what does not
// fit the command.
type configResolver struct {
	read   func() (config, error)
	failed error // of read
}

func newConfigResolver() *configResolver { return &configResolver{read: sync.OnceValues(readConfig)} }

// Validate implements kong.Resolver. It returns the error of the file: kong would add the name of a flag to one of Resolve.
func (r *configResolver) Validate(*kong.Application) error { return r.failed }

// Resolve implements kong.Resolver.
func (r *configResolver) Resolve(_ *kong.Context, of *kong.Path, flag *kong.Flag) (any, error) {
	switch flag.Name {
	case "relay", "dht", "key":
	default:
		return nil, nil
	}
	c, err := r.read()
	if err != nil {
		r.failed = err
		return nil, nil
	}
	_, inEnv := os.LookupEnv(relayEnv)
	servesDHT := of.Command != nil && of.Command.Name == "relay" // which cannot serve the public one
	switch {
	case flag.Name == "relay" && len(c.Relay) > 0 && !inEnv:
		return strings.Join(c.Relay, ","), nil
	case flag.Name == "dht" && len(c.DHT) > 0 && !(servesDHT && (c.DHT[0] == dhtPublic || c.DHT[0] == dhtNone)):
		return strings.Join(c.DHT, ","), nil
	case flag.Name == "key" && c.Key != "":
		return c.Key, nil
	}
	return nil, nil
}
