package portal

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"sort"
	"strings"

	"github.com/goccy/go-yaml"
	"golang.org/x/text/language"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

//go:embed locales/*.yaml
var builtIn embed.FS

// Locale is one language's texts, from a file that is named after its tag.
type Locale struct {
	Name      string                         `yaml:"name"`      // the language's own name for itself
	Direction string                         `yaml:"direction"` // ltr or rtl
	Texts     map[string]string              `yaml:"texts"`
	Channels  map[domain.Channel]ChannelText `yaml:"channels"`
	Purposes  map[domain.Purpose]PurposeText `yaml:"purposes"`

	Tag     string `yaml:"-"` // BCP 47
	Version string `yaml:"-"` // the tag and a hash of the file: which words somebody saw
}

// ChannelText names a channel.
type ChannelText struct {
	Name string `yaml:"name"` // E-mail
	By   string `yaml:"by"`   // by e-mail
}

// PurposeText names a purpose and says what it brings.
type PurposeText struct {
	Name string `yaml:"name"`
	Text string `yaml:"text"`
}

// texts lists what every locale has to say.
var texts = []string{
	"title", "intro", "language", "news", "service", "not_chosen", "changed", "save", "save_hint",
	"stop_title", "stop_text", "stop_button", "channel_on", "channel_off_hint",
	"saved_title", "saved_text", "nothing_saved", "is_on", "is_off",
	"unsubscribe_title", "unsubscribe_question", "unsubscribe_text", "unsubscribe_button", "unsubscribe_all", "unsubscribed_title", "unsubscribed_text",
	"already_title", "already_text", "privacy", "contact",
	"invalid_title", "invalid_text", "expired_title", "expired_text", "erased_title", "erased_text", "busy_title", "busy_text", "unavailable_title", "unavailable_text",
}

// locales are the languages that there are.
type locales struct {
	all     []*Locale // by name, for the chooser
	tags    []*Locale // in the matcher's order
	matcher language.Matcher
}

// readLocales reads the texts that are built in, then a directory's, whose files replace them or add to them. fallback
// is the language when none fits.
func readLocales(dir, fallback string) (*locales, error) {
	found := map[string]*Locale{}
	read := func(files fs.FS) error {
		names, err := fs.Glob(files, "*.yaml")
		if err != nil {
			return err
		}
		for _, name := range names {
			text, err := fs.ReadFile(files, name)
			if err != nil {
				return err
			}
			locale, err := parseLocale(strings.TrimSuffix(path.Base(name), ".yaml"), text)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			found[locale.Tag] = locale
		}
		return nil
	}
	sub, err := fs.Sub(builtIn, "locales")
	if err != nil {
		return nil, err
	}
	if err := read(sub); err != nil {
		return nil, err
	}
	if dir != "" {
		if err := read(os.DirFS(dir)); err != nil {
			return nil, err
		}
	}
	first, ok := found[fallback]
	if !ok {
		return nil, fmt.Errorf("language %q has no texts", fallback)
	}
	l := &locales{}
	for _, locale := range found {
		l.all = append(l.all, locale)
	}
	sort.Slice(l.all, func(i, j int) bool { return l.all[i].Tag < l.all[j].Tag })
	l.tags = append(l.tags, first) // the matcher takes its first when nothing fits
	tags := []language.Tag{language.Make(first.Tag)}
	for _, locale := range l.all {
		if locale != first {
			l.tags, tags = append(l.tags, locale), append(tags, language.Make(locale.Tag))
		}
	}
	l.matcher = language.NewMatcher(tags)
	return l, nil
}

// parseLocale reads one file and refuses it unless it says everything.
func parseLocale(tag string, text []byte) (*Locale, error) {
	l := &Locale{Tag: tag}
	if _, err := language.Parse(tag); err != nil {
		return nil, fmt.Errorf("%q is no language tag: %w", tag, err)
	}
	if err := yaml.UnmarshalWithOptions(text, l, yaml.Strict()); err != nil {
		return nil, err
	}
	var missing []error
	for _, key := range texts {
		if l.Texts[key] == "" {
			missing = append(missing, fmt.Errorf("texts: %s is missing", key))
		}
	}
	for _, channel := range domain.Channels {
		if c := l.Channels[channel]; c.Name == "" || c.By == "" {
			missing = append(missing, fmt.Errorf("channels: %s is missing or not whole", channel))
		}
	}
	for _, purpose := range domain.Purposes[1:] {
		if c := l.Purposes[purpose]; c.Name == "" || c.Text == "" {
			missing = append(missing, fmt.Errorf("purposes: %s is missing or not whole", purpose))
		}
	}
	if l.Direction != "ltr" && l.Direction != "rtl" {
		missing = append(missing, errors.New("direction: is neither ltr nor rtl"))
	}
	if l.Name == "" {
		missing = append(missing, errors.New("name: is missing"))
	}
	sum := sha256.Sum256(text)
	l.Version = tag + "-" + hex.EncodeToString(sum[:6])
	return l, errors.Join(missing...)
}

// choose gives the language that was chosen, or the best of those that the browser asks for.
func (l *locales) choose(chosen, acceptLanguage string) *Locale {
	for _, locale := range l.all {
		if locale.Tag == chosen {
			return locale
		}
	}
	_, at := language.MatchStrings(l.matcher, acceptLanguage)
	return l.tags[at]
}
