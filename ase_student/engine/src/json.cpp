#include "json.h"

#include <cmath>
#include <locale>
#include <sstream>
#include <stdexcept>

namespace ase {
namespace {

constexpr int MOST_LEVELS = 64;

class Parser {
public:
    Parser(const char* text, size_t size) : at_(text), start_(text), end_(text + size) {}

    Json document() {
        Json value = parse_value(0);
        skip_space();
        if (at_ != end_) fail("text after the end");
        return value;
    }

private:
    const char *at_, *start_, *end_;

    [[noreturn]] void fail(const std::string& reason) const {
        throw std::invalid_argument("not JSON: " + reason + " at character " +
                                    std::to_string(at_ - start_));
    }

    void skip_space() {
        while (at_ < end_ && (*at_ == ' ' || *at_ == '\t' || *at_ == '\n' || *at_ == '\r')) at_++;
    }

    char peek() const { return at_ < end_ ? *at_ : '\0'; }

    bool take(char expected) {
        if (peek() != expected || at_ == end_) return false;
        at_++;
        return true;
    }

    void take_word(const char* word) {
        for (; *word; word++)
            if (!take(*word)) fail("an unknown word");
    }

    Json parse_value(int depth) {
        if (depth > MOST_LEVELS) fail("too many levels");
        skip_space();
        Json value;
        switch (peek()) {
            case '{': parse_object(value, depth); break;
            case '[': parse_array(value, depth); break;
            case '"':
                value.kind = Json::STRING;
                value.string = parse_string();
                break;
            case 't':
                take_word("true");
                value.kind = Json::BOOLEAN;
                value.boolean = true;
                break;
            case 'f':
                take_word("false");
                value.kind = Json::BOOLEAN;
                break;
            case 'n': take_word("null"); break;
            // Not in the standard, but Python writes NaN and Infinity.
            case 'N':
                take_word("NaN");
                value.kind = Json::NUMBER;
                value.number = std::nan("");
                break;
            case 'I':
                take_word("Infinity");
                value.kind = Json::NUMBER;
                value.number = HUGE_VAL;
                break;
            default:
                value.kind = Json::NUMBER;
                value.number = parse_number();
        }
        return value;
    }

    void parse_object(Json& value, int depth) {
        value.kind = Json::OBJECT;
        at_++;
        skip_space();
        if (take('}')) return;
        do {
            skip_space();
            if (peek() != '"') fail("a name is missing");
            std::string key = parse_string();
            skip_space();
            if (!take(':')) fail("a colon is missing");
            if (!value.object.emplace(key, parse_value(depth + 1)).second)
                fail("'" + key + "' occurs twice");
            skip_space();
        } while (take(','));
        if (!take('}')) fail("a brace is missing");
    }

    void parse_array(Json& value, int depth) {
        value.kind = Json::ARRAY;
        at_++;
        skip_space();
        if (take(']')) return;
        do {
            value.array.push_back(parse_value(depth + 1));
            skip_space();
        } while (take(','));
        if (!take(']')) fail("a bracket is missing");
    }

    unsigned parse_hex() {
        unsigned code = 0;
        for (int q = 0; q < 4; q++) {
            const char c = peek();
            if (at_ == end_) fail("an unterminated string");
            at_++;
            code *= 16;
            if (c >= '0' && c <= '9') code += c - '0';
            else if (c >= 'a' && c <= 'f') code += c - 'a' + 10;
            else if (c >= 'A' && c <= 'F') code += c - 'A' + 10;
            else fail("an invalid escape sequence");
        }
        return code;
    }

    static void append_utf8(std::string& to, unsigned code) {
        if (code < 0x80) {
            to += (char)code;
        } else if (code < 0x800) {
            to += (char)(0xC0 | code >> 6);
            to += (char)(0x80 | (code & 0x3F));
        } else if (code < 0x10000) {
            to += (char)(0xE0 | code >> 12);
            to += (char)(0x80 | (code >> 6 & 0x3F));
            to += (char)(0x80 | (code & 0x3F));
        } else {
            to += (char)(0xF0 | code >> 18);
            to += (char)(0x80 | (code >> 12 & 0x3F));
            to += (char)(0x80 | (code >> 6 & 0x3F));
            to += (char)(0x80 | (code & 0x3F));
        }
    }

    std::string parse_string() {
        std::string text;
        at_++;
        for (;;) {
            if (at_ == end_) fail("an unterminated string");
            const char c = *at_++;
            if (c == '"') return text;
            if (c != '\\') {
                text += c;
                continue;
            }
            if (at_ == end_) fail("an unterminated string");
            switch (*at_++) {
                case '"': text += '"'; break;
                case '\\': text += '\\'; break;
                case '/': text += '/'; break;
                case 'b': text += '\b'; break;
                case 'f': text += '\f'; break;
                case 'n': text += '\n'; break;
                case 'r': text += '\r'; break;
                case 't': text += '\t'; break;
                case 'u': {
                    unsigned code = parse_hex();
                    if (code >= 0xD800 && code < 0xDC00 && take('\\')) {
                        if (!take('u')) fail("an incomplete surrogate pair");
                        const unsigned low = parse_hex();
                        if (low < 0xDC00 || low > 0xDFFF) fail("an incomplete surrogate pair");
                        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
                    }
                    append_utf8(text, code);
                    break;
                }
                default: fail("an invalid escape sequence");
            }
        }
    }

    double parse_number() {
        const char* from = at_;
        if (take('-') && peek() == 'I') {
            take_word("Infinity");
            return -HUGE_VAL;
        }
        while (at_ < end_ && ((*at_ >= '0' && *at_ <= '9') || *at_ == '.' || *at_ == 'e' ||
                              *at_ == 'E' || *at_ == '+' || *at_ == '-'))
            at_++;
        if (at_ == from) fail("a value is missing");
        // Independent of the locale of the process.
        std::istringstream stream(std::string(from, at_));
        stream.imbue(std::locale::classic());
        double number = 0;
        stream >> number;
        if (stream.fail() || !stream.eof()) fail("an invalid number");
        return number;
    }
};

}  // namespace

const Json* Json::find(const std::string& key) const {
    const auto member = object.find(key);
    return member == object.end() ? nullptr : &member->second;
}

Json Json::parse(const char* text, size_t size) { return Parser(text, size).document(); }

}  // namespace ase
