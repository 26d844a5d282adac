// A reader for JSON, for the metadata of a student's file.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace ase {

class Json {
public:
    enum Kind { NOTHING, BOOLEAN, NUMBER, STRING, ARRAY, OBJECT };
    Kind kind = NOTHING;
    bool boolean = false;
    double number = 0;
    std::string string;
    std::vector<Json> array;
    std::map<std::string, Json> object;

    // The member of an object; null if there is no such member, or this is not an object.
    const Json* find(const std::string& key) const;

    // Throws std::invalid_argument, with the position, if the text is not JSON.
    static Json parse(const char* text, size_t size);
};

}  // namespace ase
