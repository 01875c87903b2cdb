// Skipjack as Crypto++ has it, to hold ours against.  A question a line: mode, key, IV (- for none), data; all in hexadecimal.
// The answer: the data encrypted, a space, the data decrypted.

#include <cryptopp/hex.h>
#include <cryptopp/modes.h>
#include <cryptopp/skipjack.h>

#include <iostream>
#include <string>

using namespace CryptoPP;
using std::string;

static string bytes(const string& text) {
    string result;
    if (text != "-") StringSource(text, true, new HexDecoder(new StringSink(result)));
    return result;
}

static string hex(const string& data) {
    string result;
    StringSource(data, true, new HexEncoder(new StringSink(result), false));
    return result;
}

template <class Mode> static string run(const string& key, const string& iv, const string& data, int unit) {
    Mode mode;
    const byte* secret = reinterpret_cast<const byte*>(key.data());
    const byte* start = reinterpret_cast<const byte*>(iv.data());
    if (iv.empty()) {
        mode.SetKey(secret, key.size());
    } else {
        AlgorithmParameters parameters = MakeParameters(Name::IV(), ConstByteArrayParameter(start, iv.size()));
        if (unit) parameters(Name::FeedbackSize(), unit);
        mode.SetKey(secret, key.size(), parameters);
    }
    string result(data.size(), '\0');
    mode.ProcessData(reinterpret_cast<byte*>(&result[0]), reinterpret_cast<const byte*>(data.data()), data.size());
    return hex(result);
}

template <class Mode> static string both(const string& key, const string& iv, const string& data, int unit = 0) {
    return run<typename Mode::Encryption>(key, iv, data, unit) + " " + run<typename Mode::Decryption>(key, iv, data, unit);
}

int main() {
    string mode, key, iv, data;
    while (std::cin >> mode >> key >> iv >> data) {
        key = bytes(key), iv = bytes(iv), data = bytes(data);
        if (mode == "ECB64") std::cout << both<ECB_Mode<SKIPJACK>>(key, iv, data);
        if (mode == "CBC64") std::cout << both<CBC_Mode<SKIPJACK>>(key, iv, data);
        if (mode == "OFB64") std::cout << both<OFB_Mode<SKIPJACK>>(key, iv, data);
        if (mode.rfind("CFB", 0) == 0) std::cout << both<CFB_Mode<SKIPJACK>>(key, iv, data, std::stoi(mode.substr(3)) / 8);
        std::cout << std::endl;
    }
}
